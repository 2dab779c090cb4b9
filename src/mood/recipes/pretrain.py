"""`mood pretrain`: a network learns images from the images alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mood.core.config import Argument, NotInFingerprint, config, fields, to_dict
from mood.core.ranges import Count, NotNegative, Part, Positive, Share
from mood.recipes.pretexts import PretextConfig, pretext_settings
from mood.recipes.settings import NetworkStageConfig

if TYPE_CHECKING:
    from torch import Tensor

    from mood.data import Augment, Source, Stream
    from mood.models import Architecture, DvaeTokenizer, Stage, VaeShape
    from mood.recipes.inputs import TrainingSet
    from mood.training import Optimisation, Processes


@config
class PretrainConfig(PretextConfig, NetworkStageConfig):
    """Pre-train a network on images without labels, by masked image modelling and its rivals."""

    data: Annotated[tuple[str, ...], Argument("DATA...")]
    """images to learn from: folders, Parquet files or named sets; labels are not used"""
    output: Annotated[Path, NotInFingerprint]
    """folder for the network"""
    model: str = "mood_vit_conv4_32"
    """timm name of a vision transformer; moco_v3, supcon, classification and scratch take any network"""
    model_options: tuple[str, ...] = ()
    """KEY=VALUE arguments of the architecture, such as depth=8 or img_size=64"""
    base_lr: Positive = 1.5e-4
    """learning rate for 256 images a step; the rate used is base_lr * batch_size / 256"""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    """adamw, or sgd with a momentum of .9"""
    beta2: Share = 0.95
    """AdamW's second beta"""
    color_jitter: Annotated[float, Field(ge=0, le=100)] | None = None
    """strength of changes of brightness, contrast and saturation: beit .4, others none unless said; moco_v3 and supcon
    have their own"""
    drop_path: Share | None = None
    """stochastic depth of the last block: beit and simmim .1, others none unless said"""
    epochs: Count = 100
    batch_size: Count = 256
    clip: NotNegative = 0.0
    crop_scale: Part = 0.2


@dataclass(frozen=True)
class PretrainResult:
    """What `mood pretrain` leaves: the folder, and the last loss, None where nothing was trained."""

    output: Path
    images: int
    loss: float | None
    reused: bool
    rejected: int = 0

    def summary(self) -> str:
        """One line for a person."""
        from mood.recipes.rejected import told

        if self.reused:
            return f"{self.output} was already finished with this configuration; nothing to do"
        if self.loss is None:
            return f"the network in {self.output} is as it was initialised"
        return (
            f"pre-trained on {self.images - self.rejected} images, loss {self.loss:.4f}; the network is in "
            f"{self.output}{told(self.rejected)}"
        )


def architecture_of(config: PretrainConfig) -> "Architecture":
    """The network that is pre-trained: what the config says of it, and else what the pretext's recipe has."""
    from mood.models import PRETEXTS, Architecture
    from mood.recipes.inputs import model_options

    options = {**PRETEXTS[config.pretext].options, **model_options(config.model_options), "num_classes": 0}
    return Architecture(config.model, options)


def _check(config: PretrainConfig, given: Mapping[str, Any]) -> None:
    """Refuse what cannot be pre-trained, before an image is looked at and without memory for a single weight.

    Raises:
        InputError: a setting that is out of range, or of another pretext.
        ModelError: a network that cannot be built, or that the pretext cannot use.
    """
    import torch

    from mood.core.errors import InputError
    from mood.models import PRETEXTS, make_pretext
    from mood.recipes.inputs import check_stream, check_training
    from mood.recipes.tasks import compute_again
    from mood.training import check_divisible

    if config.accumulate > 1 and PRETEXTS[config.pretext].compares:
        raise InputError(
            f"accumulate is {config.accumulate}, and pretext {config.pretext} compares all images of a batch with each "
            "other: set it to 1, and use more processes or checkpoint_activations where memory is short"
        )
    check_training(config.strategy, batch_size=config.batch_size, accumulate=config.accumulate, compile=config.compile)
    if config.optimiser == "sgd" and config.beta2 != fields(PretrainConfig)["beta2"].default:
        raise InputError(f"beta2 is {config.beta2}, and sgd has none: leave beta2 out, or set optimiser to adamw")
    if config.stream:
        check_stream(config.data, config.limit)
    if PRETEXTS[config.pretext].trained:
        _optimisation(config, config.device, config.precision)
    augments_of(config)
    said = _said(config)
    said.check()
    # How many classes there are is known later; two are enough here.
    classes = {"classes": 2} if config.pretext == "classification" else {}
    with torch.device("meta"):
        pretext = make_pretext(config.pretext, said.build(), {**given, **classes})
    check_divisible(pretext, config.accumulate)
    if config.checkpoint_activations:
        compute_again(pretext.encoder, config.model)


def _said(config: PretrainConfig) -> "Architecture":
    """The network without the pretext's own options, so that one that does not take them is told what it is not."""
    from mood.models import Architecture
    from mood.recipes.inputs import model_options

    return Architecture(config.model, {**model_options(config.model_options), "num_classes": 0})


def _tokenizer(path: Path, architecture: "Architecture") -> "DvaeTokenizer":
    """The tokenizer, for the patches that the network has."""
    import torch

    from mood.models import open_tokenizer
    from mood.models.model import patch_embedding

    architecture.check()
    with torch.device("meta"):
        patches = patch_embedding(architecture.build())
    return open_tokenizer(path, grid=getattr(patches, "grid_size", None))


def check(config: PretrainConfig, *, coming: "VaeShape | None" = None) -> dict[str, Any]:
    """Refuse what cannot be pre-trained, before an image is looked at, and give what the pretext is told.

    Args:
        config: of the stage.
        coming: what a stage before it will train as its tokenizer.

    Raises:
        InputError: a setting that is out of range, or of another pretext.
        ModelError: a network that nobody knows, that cannot be built, or that the pretext cannot use.
    """
    from mood.models import check_name, untrained_tokenizer

    check_name(config.model)
    given = pretext_settings(config)
    if coming is not None:
        given["tokenizer"] = untrained_tokenizer(coming)
    elif config.tokenizer is not None:
        given["tokenizer"] = _tokenizer(config.tokenizer, _said(config))
    _check(config, given)
    return given


def chosen_images(config: PretrainConfig, sources: "Sequence[Source | Stream]") -> "TrainingSet":
    """The images that are learned from.

    Raises:
        InputError: the pretext wants labels that are not there, or the images do not fill a batch.
    """
    from mood.models import PRETEXTS
    from mood.recipes.inputs import check_batch_size, training_set

    chosen = training_set(
        sources,
        stage="pretrain",
        labelled=PRETEXTS[config.pretext].labelled,
        seed=config.seed,
        fraction=config.held_out,
        settings={"pretext": config.pretext, "epochs": config.epochs, "base_lr": config.base_lr},
    )
    check_batch_size(len(chosen.source), config.batch_size)
    return chosen


def augments_of(config: PretrainConfig) -> "tuple[Augment, ...]":
    """How the views of the pretext are varied: the published recipe of each, but for the size of the crop.

    Raises:
        InputError: a strength of colours for a pretext that has its own.
    """
    from mood.core.errors import InputError
    from mood.data import Augment
    from mood.models import PRETEXTS

    scale = (config.crop_scale, 1.0)
    if config.pretext in ("moco_v3", "supcon") and config.color_jitter is not None:
        raise InputError(f"color_jitter is not for pretext {config.pretext}, whose colours belong to its views")
    if config.pretext == "moco_v3":
        return Augment.contrast(blur=1.0, scale=scale), Augment.contrast(blur=0.1, solarize=0.2, scale=scale)
    if config.pretext == "supcon":
        return (Augment.contrast(blur=0.0, saturation=0.4, scale=scale),) * 2
    usual = PRETEXTS[config.pretext].color_jitter
    return (Augment(scale=scale, color_jitter=usual if config.color_jitter is None else config.color_jitter),)


def _optimisation(config: PretrainConfig, device: str, precision: str) -> "Optimisation":
    from mood.training import Optimisation

    return Optimisation(
        epochs=config.epochs,
        lr=config.base_lr * config.batch_size / 256,
        warmup_epochs=config.epochs / 20 if config.warmup_epochs is None else config.warmup_epochs,
        weight_decay=config.weight_decay,
        optimiser=config.optimiser,
        betas=(0.9, config.beta2),
        clip=config.clip,
        seed=config.seed,
        device=device,
        precision=precision,
        accumulate=config.accumulate,
        compile=config.compile,
        save_seconds=config.save_seconds,
    )


def pretrain(config: PretrainConfig, *, source: "Source | None" = None) -> PretrainResult:
    """Pre-train a network and write it as a model folder; start again to resume.

    Where torchrun started several processes, each calls this, and trains on its share of every batch.

    Args:
        config: see `PretrainConfig`.
        source: opened images in place of `config.data`.

    Raises:
        MoodError: bad data, an architecture that the pretext cannot use, an output that is taken.
    """
    from mood.models import resolve_device
    from mood.training import processes

    given = check(config)
    return _pretrain(config, given, source, processes(config.strategy, str(resolve_device(config.device))))


def _pretrain(
    config: PretrainConfig, given: dict[str, Any], source: "Source | None", together: "Processes"
) -> PretrainResult:
    import torch

    from mood.data import TrainingImages, open_source
    from mood.models import (
        PRETEXTS,
        Beside,
        Model,
        Pretext,
        input_transform,
        make_pretext,
        resolve_precision,
        save_model,
        weights_digest,
        without_fused_attention,
    )
    from mood.recipes.inputs import (
        METRICS,
        fingerprint_of,
        images_of_last_stage,
        keep_records,
        last_metrics,
        open_stream,
        union,
    )
    from mood.recipes.rejected import rejections
    from mood.recipes.tasks import PretextTask, compute_again
    from mood.recipes.together import open_output_of_all
    from mood.training import seed_everything, train

    architecture = architecture_of(config)
    device = together.device
    sources: Sequence[Source | Stream]
    if source is not None:
        sources = [source]
    elif config.stream:
        sources = [open_stream(config.data[0], together, seed=config.seed, fraction=config.held_out)]
    else:
        sources = [open_source(name, roots=config.data_root, limit=config.limit) for name in config.data]
    settings = to_dict(config) | {"images": [fingerprint_of(item) for item in sources]}
    if config.tokenizer is not None:
        settings["tokenizer"] = weights_digest(given["tokenizer"])
    with open_output_of_all(together, config.output, settings, overwrite=config.overwrite) as output:
        if output.finished:
            loss = last_metrics(config.output).get("loss")
            seen = images_of_last_stage(config.output)
            return PretrainResult(config.output, seen, loss, True, len(rejections(config.output)))
        chosen = chosen_images(config, sources)
        seed_everything(config.seed)
        drop_path = PRETEXTS[config.pretext].drop_path if config.drop_path is None else config.drop_path
        encoder = architecture.build(drop_path_rate=drop_path) if drop_path else architecture.build()
        transform = input_transform(encoder)
        if config.pretext == "classification":
            given["classes"] = len(chosen.class_names)
        pretext = make_pretext(config.pretext, encoder, given)
        pretext.initialise()
        if not pretext.trained:
            untrained = Model(
                name=config.output.name,
                module=pretext.release(),
                transform=transform,
                architecture=architecture,
                history=(),
                seen=torch.empty(0, dtype=torch.int64),
                source="mood pretrain, scratch",
            )
            if together.first:
                save_model(output.work, untrained)
                (output.work / METRICS).touch()
                output.commit()
            return PretrainResult(config.output, 0, None, reused=False)
        images = TrainingImages(
            chosen.source,
            augments_of(config),
            size=transform.size,
            mean=transform.mean,
            std=transform.std,
            seed=config.seed,
            twin_size=pretext.twin_size,
        )
        if device.type == "cpu":
            without_fused_attention(pretext)
        if config.checkpoint_activations:
            compute_again(encoder, config.model)
        trained = train(
            PretextTask(pretext, images, config, output.scratch),
            _optimisation(config, str(device), resolve_precision(config.precision, device)),
            output.scratch,
            description="pretrain",
            together=together,
        )
        assert isinstance(trained, Pretext)
        beside = {name: value for name, value in trained.state_dict().items() if not name.startswith("encoder.")}
        history: tuple[Stage, ...] = chosen.stages
        keys: Tensor | None = chosen.keys
        if config.tokenizer is not None:
            # What the targets are made by has taught the network what it saw.
            history = (*(given["tokenizer"].history or ()), *history)
            keys = None if given["tokenizer"].seen is None else union(given["tokenizer"].seen, chosen.keys)
        told = {name: value for name, value in given.items() if isinstance(value, bool | int | float | str)}
        model = Model(
            name=config.output.name,
            module=trained.release(),
            transform=transform,
            architecture=architecture,
            history=history,
            seen=keys,
            source=f"mood pretrain, {config.epochs} epochs",
            beside=Beside(config.pretext, told, beside) if beside else None,
        )
        loss = None
        if together.first:
            save_model(output.work, model)
            loss = keep_records(output.scratch, output.work)["loss"]
            output.commit()
        loss = together.agree(loss)
    return PretrainResult(config.output, len(images), loss, False, len(rejections(config.output)))
