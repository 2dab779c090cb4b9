"""From what the user says to a `Model`: a timm name, a checkpoint, the embedded model, or a module of their own."""

import copy
import difflib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from mood.core import artifact
from mood.core.errors import InputError, ModelError
from mood.core.transform import Transform
from mood.models.model import Architecture, Beside, Model, Stage, patch_embedding
from mood.models.pretexts import make_pretext, reconstructs
from mood.models.weights import implied_options, load_weights, read_state

EMBEDDED = "embedded"
KIND = "model"

# The share of letters from which on a name is taken for a slip: it is 0.85 with hyphens in place of timm's underscores,
# and at most 0.67 of the folders that `mood train` writes for the shipped recipes.
_NEARLY = 0.8


def open_model(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    random_weights: bool = False,
    seed: int = 0,
    transform: Mapping[str, Any] | None = None,
) -> Model:
    """Open a network by name.

    Args:
        name: `embedded`, a folder written by `mood pretrain` or `mood finetune`, or any timm model name (hub weights
            unless `checkpoint` is given).
        checkpoint: a local file with weights for that timm name, in any format that `mood.models.formats` knows; it is
            told by its content. The head is the file's: as many outputs, or none, unless `options` say otherwise.
        options: keyword arguments of the timm architecture (`img_size`, `depth`, …); of a network that comes with its
            weights, `img_size` alone (`resized`).
        random_weights: keep the architecture's random initialisation instead of any weights (a control).
        seed: of that initialisation.
        transform: settings of the input transform in place of the network's own (`Transform.changed`).

    Raises:
        ModelError: unknown name, weights that cannot be had, or that do not fit.
        InputError: arguments that do not go together.
    """
    model = _opened(name, checkpoint, options, random_weights, seed)
    return replace(model, transform=model.transform.changed(transform)) if transform else model


def _opened(
    name: str, checkpoint: str | Path | None, options: Mapping[str, Any] | None, random_weights: bool, seed: int
) -> Model:
    if checkpoint is not None and random_weights:
        raise InputError("a checkpoint and random weights exclude each other")
    is_folder = name == EMBEDDED or Path(name).is_dir()
    if is_folder and (checkpoint is not None or set(options or ()) - {"img_size"}):
        raise InputError(
            f"model {name!r} brings its own architecture and weights: leave out checkpoint and all options but img_size"
        )
    if is_folder:
        model = _embedded() if name == EMBEDDED else load_model(Path(name))
        if options:
            model = resized(model, options["img_size"])
        return randomised(model, seed) if random_weights else model
    architecture = Architecture(name, dict(options or {}))
    check_name(name)
    if random_weights or checkpoint is not None:
        source = "random weights"
        history: tuple[Stage, ...] | None = ()
        seen: Tensor | None = torch.empty(0, dtype=torch.int64)
        if checkpoint is not None:
            state = read_state(checkpoint)
            with torch.device("meta"):
                implied = implied_options(architecture.build(), state)
            architecture = replace(architecture, options={**implied, **architecture.options})
            module = _seeded(architecture, seed)
            report = load_weights(module, state)
            source, history, seen = f"{Path(checkpoint).name}: {report}", None, None
        else:
            module = _seeded(architecture, seed)
        return Model(
            name=name,
            module=module.eval(),
            transform=input_transform(module, architecture.options.get("img_size")),
            architecture=architecture,
            history=history,
            seen=seen,
            source=source,
        )
    return _from_hub(architecture)


def check_name(name: str) -> None:
    """Refuse what `open_model` cannot open, without opening anything.

    Raises:
        ModelError: no network has this name.
    """
    known = timm.list_models(include_tags=False)
    if name == EMBEDDED or Path(name).is_dir():
        return
    stem, _, tag = name.partition(".")
    if stem in known:
        weights = timm.list_models(f"{stem}.*", include_tags=True)
        if tag and name not in weights:
            raise ModelError(f"model {stem!r} has no weights {tag!r}; timm has {', '.join(weights) or 'none of it'}")
        return
    if Path(name).is_file():
        raise ModelError(f"model {name!r} is a file: give it as checkpoint, and the name of its architecture as model")
    near = difflib.get_close_matches(name, [*known, EMBEDDED], n=4)
    if near:
        hint = f"did you mean {', '.join(near)}?"
    elif "/" in name:
        hint = (
            "a folder such as NAME/finetune is written by `mood train`, others by `mood pretrain` and `mood finetune`"
        )
    else:
        hint = "timm.list_models() has their names"
    raise ModelError(f"model {name!r} is neither 'embedded', a folder, nor a timm model; {hint}")


def check_spelling(name: str) -> None:
    """Refuse a name that is nearly that of a network: no folder is called so that is yet to be written.

    Raises:
        ModelError: as `check_name`.
    """
    known = [*timm.list_models(include_tags=False), EMBEDDED]
    if "/" in name or not difflib.get_close_matches(name.split(".")[0], known, n=1, cutoff=_NEARLY):
        return
    try:
        check_name(name)
    except ModelError as error:
        raise ModelError(f"{error} (a folder that is yet to be written is named with a slash: ./{name})") from None


def own_model(module: nn.Module, transform: Transform, *, head: str | None, name: str = "your module") -> Model:
    """The user's own network: what its head sees is the embedding.

    Args:
        module: takes (N, 3, H, W) and gives logits, or the embedding where `head` is None.
        transform: what turns a file into its input.
        head: dotted name of its last linear layer.
        name: for reports.

    Raises:
        ModelError: the module has no layer of that name.
    """
    model = Model(name=name, module=module.eval(), transform=transform, head_name=head, source="given as a module")
    model.classifier()
    return model


def save_model(
    folder: Path,
    model: Model,
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a network of timm's making as an artifact of kind "model".

    Args:
        folder: where to; made if absent.
        model: with an architecture.
        dtype: stores floating-point weights in this type; loading gives float32 again.

    Raises:
        ModelError: the user's own module, which only their code can build.
    """
    if model.architecture is None:
        raise ModelError("your own module cannot be saved as a model: only your code can build it again")
    state = {name: value.detach().cpu() for name, value in model.module.state_dict().items()}
    if dtype is not None:
        state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    tensors: dict[str, Mapping[str, Tensor]] = {"model": state}
    if model.beside is not None:
        tensors["pretext"] = {name: value.detach().cpu() for name, value in model.beside.tensors.items()}
    if model.seen is not None:
        tensors["seen"] = {"keys": model.seen}
    meta = {
        "name": model.name,
        "architecture": {"name": model.architecture.name, "options": dict(model.architecture.options)},
        "transform": model.transform.to_dict(),
        "class_names": list(model.class_names),
        "history": None if model.history is None else [asdict(stage) for stage in model.history],
        "source": model.source,
        "pretext": None
        if model.beside is None
        else {"name": model.beside.name, "settings": dict(model.beside.settings)},
        "pool": model.pool,
        "layer": model.layer,
    }
    artifact.write(folder, kind=KIND, tensors=tensors, meta=meta)


def load_model(folder: Path) -> Model:
    """Read what `save_model` wrote.

    Raises:
        ArtifactError: the folder is damaged or holds another kind.
        ModelError: this timm does not know the architecture, or the weights do not fit it.
    """
    tensors, meta = artifact.read(folder, kind=KIND)
    architecture = Architecture(meta["architecture"]["name"], meta["architecture"]["options"])
    module = architecture.build()
    state = {name: value.float() if value.is_floating_point() else value for name, value in tensors["model"].items()}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"the weights in {folder} do not fit {architecture.name}: {error}") from error
    history = meta["history"]
    return Model(
        name=meta["name"],
        module=module.eval(),
        transform=Transform.from_dict(meta["transform"]),
        architecture=architecture,
        class_names=tuple(meta["class_names"]),
        history=None
        if history is None
        else tuple(Stage(**{**stage, "class_names": tuple(stage["class_names"])}) for stage in history),
        seen=tensors["seen"]["keys"] if "seen" in tensors else None,
        source=meta["source"],
        # Folders of the first versions do not say which pretext their tensors are of.
        beside=Beside(**beside, tensors=tensors.get("pretext", {})) if (beside := meta.get("pretext")) else None,
        # Networks that were saved before they could choose have chosen nothing.
        pool=meta.get("pool", "model"),
        layer=meta.get("layer", "last"),
    )


def _embedded() -> Model:
    with as_file(files("mood.models") / "embedded") as folder:
        return replace(load_model(folder), name=EMBEDDED)


def randomised(model: Model, seed: int) -> Model:
    """The same network with the weights it had before any training.

    Raises:
        ModelError: the user's own module, which only their code can build.
    """
    if model.architecture is None:
        raise ModelError("your own module has no random twin: only your code can build it")
    return replace(
        model,
        name=f"{model.name} (random weights)",
        module=_seeded(model.architecture, seed).eval(),
        history=(),
        seen=torch.empty(0, dtype=torch.int64),
        source="random weights",
        beside=_random_decoder(model.architecture, model.beside, seed),
    )


def resized(model: Model, size: int | tuple[int, int]) -> Model:
    """The same weights for images of another size: tables of positions, absolute and relative, are resampled.

    Args:
        model: with an architecture.
        size: (H, W), or the side of a square.

    Raises:
        ModelError: the user's own module; a network that is built for no size, or one that its patches do not fill.
    """
    if model.architecture is None:
        raise ModelError("your own module cannot be resized: only your code can build it")
    architecture = replace(model.architecture, options={**model.architecture.options, "img_size": size})
    if not hasattr(model.module, "set_input_size"):
        raise ModelError(
            f"{architecture.name} is built for no size of its own: it takes any as it is, without img_size"
        )
    architecture.check()
    module: Any = copy.deepcopy(model.module)
    with warnings.catch_warnings():
        # timm hands a transposed grid to torch, which warns of the copy that it makes of it.
        warnings.simplefilter("ignore", UserWarning)
        module.set_input_size(img_size=_sides(size))
    new, old, resize = input_transform(module).size, model.transform.size, model.transform.resize
    sides = (resize, resize) if isinstance(resize, int) else resize
    # What lies around the crop keeps its share.
    scaled = round(sides[0] * new[0] / old[0]), round(sides[1] * new[1] / old[1])
    return replace(
        model,
        module=module.eval(),
        architecture=architecture,
        transform=replace(model.transform, size=new, resize=scaled),
        source=f"{model.source or model.name}, resized from {old[0]} x {old[1]} to {new[0]} x {new[1]} pixels",
        # A decoder is made for one size.
        beside=None,
    )


def _random_decoder(architecture: Architecture, beside: Beside | None, seed: int) -> Beside | None:
    """Of a pretext that predicts pixels; nobody reads what others leave."""
    if beside is None or not reconstructs(beside.name):
        return None
    encoder = _seeded(architecture, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = make_pretext(beside.name, encoder, beside.settings).state_dict()
    return replace(beside, tensors={name: state[name] for name in beside.tensors})


def _seeded(architecture: Architecture, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return architecture.build()


def input_transform(module: nn.Module, img_size: int | Sequence[int] | None = None) -> Transform:
    """What a timm network's own settings ask for, at the image size it was really built for.

    Args:
        module: of timm.
        img_size: (H, W), or the side of a square, that it was built with; many networks do not say it themselves.
    """
    config = dict(timm.data.resolve_model_data_config(module))
    size = getattr(patch_embedding(module), "img_size", img_size)
    if size is not None:
        config["input_size"] = (3, *_sides(size))
    return Transform.from_pretrained_cfg(config)


def _sides(size: int | Sequence[int]) -> tuple[int, ...]:
    """(H, W)."""
    return (size, size) if isinstance(size, int) else tuple(size)


def _from_hub(architecture: Architecture) -> Model:
    try:
        module = architecture.build(pretrained=True)
    except ModelError:
        raise
    except RuntimeError as error:
        raise ModelError(
            f"timm has no weights for {architecture.name!r} ({error}): choose a tag from timm.list_pretrained(), give "
            "a local file as checkpoint, or take the model 'embedded'"
        ) from error
    except Exception as error:  # every hub client has its own kind of network error
        raise ModelError(
            f"the weights of {architecture.name!r} could not be fetched from the hub ({type(error).__name__}). Give a "
            "local file as checkpoint, or take the model 'embedded', which needs no network. For real work at 224 "
            "pixels choose beit_large_patch16_224.in22k_ft_in22k (the paper's) or "
            "beitv2_base_patch16_224.in1k_ft_in22k, and copy its file from a machine that reaches the hub."
        ) from error
    return Model(
        name=architecture.name,
        module=module.eval(),
        transform=input_transform(module, architecture.options.get("img_size")),
        architecture=architecture,
        source=f"hub weights {architecture.name}",
    )
