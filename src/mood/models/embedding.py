"""One pass through a network: the embedding that its head sees, other poolings and earlier layers, and the logits."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from mood.core.errors import InputError, ModelError
from mood.core.features import Head
from mood.models.model import Model
from mood.models.packing import PackedLinear, can_pack
from mood.models.pretexts import Reconstructing, make_pretext, reconstructs

POOLS = ("model", "cls", "avg", "mean+std")


def resolve_device(device: str) -> torch.device:
    """`auto` is the accelerator where there is one, else the CPU.

    Raises:
        InputError: torch does not know the name, or cannot use that device here.
    """
    if device == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        chosen = torch.device(device)
        # There and back: "meta" is a device that holds no numbers.
        torch.zeros(1, device=chosen).cpu()
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return chosen


def resolve_precision(precision: str, device: torch.device) -> str:
    """`auto` is bf16 where the hardware multiplies it natively, else fp32.

    Raises:
        InputError: another name than auto, fp32 or bf16.
    """
    if precision in ("fp32", "bf16"):
        return precision
    if precision != "auto":
        raise InputError(f"precision must be auto, fp32 or bf16, got {precision!r}")
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # A CPU without these instructions emulates bf16 and is slower with it than without.
    native = device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return "bf16" if native else "fp32"


@dataclass(frozen=True, slots=True)
class Layer:
    """One part of an embedding: block number (None = the last, after the final norm) and how its tokens are pooled."""

    index: int | None
    pool: str


def parse_layers(layer: str, pool: str) -> tuple[Layer, ...]:
    """`"last"`, a block number, or several joined by `+`; the parts stand side by side in the embedding.

    Raises:
        InputError: an unknown pooling, or one that an earlier layer does not have.
    """
    if pool not in POOLS:
        raise InputError(f"pool must be one of {', '.join(POOLS)}, got {pool!r}")
    layers = []
    for part in layer.split("+"):
        if part == "last":
            layers.append(Layer(None, pool))
        elif part.isdigit():
            # The network's own pooling exists for its last layer only.
            layers.append(Layer(int(part), "mean+std" if pool == "model" else pool))
        else:
            raise InputError(f"layer must be 'last', a block number from 0 on, or several joined by '+', got {layer!r}")
    return tuple(layers)


def parse_inner(inner: str, blocks: int) -> tuple[int, ...]:
    """`"auto"` (a quarter, half, three quarters and all of the depth), or block numbers joined by `+`; "" is none.

    Raises:
        InputError: not a number, a block that does not exist, or a network without blocks.
    """
    if not inner:
        return ()
    if not blocks:
        raise InputError("inner layers are read from networks of timm that are a sequence of blocks, and this is none")
    if inner == "auto":
        return tuple(sorted({-(-blocks * quarter // 4) - 1 for quarter in (1, 2, 3, 4)}))
    numbers = inner.split("+")
    if not all(number.isdigit() and int(number) < blocks for number in numbers):
        raise InputError(f"inner must be 'auto' or block numbers from 0 to {blocks - 1} joined by '+', got {inner!r}")
    return tuple(sorted({int(number) for number in numbers}))


class Seen(NamedTuple):
    """What one pass gives.

    Attributes:
        embedding: (N, D) float32.
        logits: (N, K) float32; None for an encoder.
        layers: (N, C) float32 for each inner layer, the mean of its patch tokens.
        tokens: (N, P, C) float32 for each inner layer, its patch tokens.
        reconstruction: (N,) float32, the masked reconstruction error; None where it is not asked for.
    """

    embedding: Tensor
    logits: Tensor | None
    layers: tuple[Tensor, ...] = ()
    tokens: tuple[Tensor, ...] = ()
    reconstruction: Tensor | None = None

    def columns(self) -> dict[str, Tensor]:
        """By the names that features have for them, without the tokens."""
        named = {"embedding": self.embedding, **{f"layers.{index}": part for index, part in enumerate(self.layers)}}
        return named if self.logits is None else {**named, "logits": self.logits}

    def cpu(self, *, tokens: bool) -> "Seen":
        """The same in main memory, with the tokens or without."""
        return Seen(
            self.embedding.float().cpu(),
            None if self.logits is None else self.logits.float().cpu(),
            tuple(part.float().cpu() for part in self.layers),
            tuple(part.float().cpu() for part in self.tokens) if tokens else (),
            None if self.reconstruction is None else self.reconstruction.float().cpu(),
        )


class Embedder:
    """Turns pixels into embeddings and logits, in one pass.

    The body runs in the asked precision, pooling and head always in float32: bf16 logits would keep 8 bits.

    Args:
        model: the network.
        pool: None = the network's own choice (`Model.pool`); `model` = what the network's own head sees; `cls` = the
            class token; `avg` = mean of the patch tokens; `mean+std` = their mean and standard deviation side by side.
        layer: None = the network's own choice (`Model.layer`); `last`, a block number, or several joined by `+` (an
            earlier block is pooled by `mean+std` where `pool` is `model`).
        device: "auto", "cpu", "cuda", …
        precision: "auto", "fp32" or "bf16".
        inner: blocks whose tokens are given beside the embedding, for scores of inner layers; see `parse_inner`.
        reconstruction: give the error of the decoder that pre-training left.
        masks: random masks that this error is averaged over, the same for every image.
        mask_seed: which masks these are.

    Raises:
        InputError: a pooling or layer that this network does not have; no mask, or a negative seed.
        ModelError: no decoder was left beside this network.
    """

    def __init__(
        self,
        model: Model,
        *,
        pool: str | None = None,
        layer: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        inner: str = "",
        reconstruction: bool = False,
        masks: int = 8,
        mask_seed: int = 0,
    ) -> None:
        if masks < 1 or mask_seed < 0:
            raise InputError(f"masks is {masks} and mask_seed {mask_seed}; at least 1 and 0 were expected")
        self.model = model
        self.pool = model.pool if pool is None else pool
        self.layer = model.layer if layer is None else layer
        self.layers = parse_layers(self.layer, self.pool)
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        packs = self.device.type == "cpu" and self.precision == "bf16" and can_pack()
        self._products: PackedLinear | nullcontext[None] = PackedLinear() if packs else nullcontext()
        self.module = model.module.to(self.device).eval()
        self._own = model.architecture is None
        if self._own and self.layers != (Layer(None, "model"),):
            raise InputError("your own module gives the input of its head: pool and layer must be 'model' and 'last'")
        blocks = 0 if self._own else len(getattr(self.module, "blocks", ()))
        self.inner = parse_inner(inner, blocks)
        self.masks, self.mask_seed = masks, mask_seed
        self.decoder = _decoder(model).to(self.device).eval() if reconstruction else None
        for part in self.layers:
            if part.index is not None and part.index >= blocks:
                raise InputError(f"layer {part.index} does not exist: {model.name} has blocks 0 to {blocks - 1}")
            if part.pool == "cls" and not getattr(self.module, "num_prefix_tokens", 0):
                raise InputError(f"{model.name} has no class token: choose pool 'model', 'avg' or 'mean+std'")

    @property
    def head(self) -> Head | None:
        """The classifier where it is one linear layer on exactly this embedding, else None."""
        return self.model.head() if self.layers == (Layer(None, "model"),) else None

    def __call__(self, pixels: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """(N, H, W, 3) uint8 → embedding (N, D) float32 and logits (N, K) float32 (None for an encoder), on the CPU."""
        seen = self.look(pixels)
        return seen.embedding, seen.logits

    @torch.inference_mode()
    def look(self, pixels: np.ndarray | Tensor, *, tokens: bool = False) -> Seen:
        """All that one pass gives, on the CPU; tokens only where they are asked for.

        Args:
            pixels: (N, H, W, 3) uint8, or a tensor (N, 3, H, W) that is normalised already.
            tokens: give those of the inner layers.
        """
        images = self._input(pixels)
        return self._through(images)._replace(reconstruction=self._reconstruction(images)).cpu(tokens=tokens)

    def probe(self) -> Tensor:
        """(2, D + K) float32: embedding and logits of two fixed images of noise.

        Two modules of a user's own may have the same weights and do something else with them; this tells.
        """
        height, width = self.model.transform.size
        noise = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        seen = self.look(noise)
        return seen.embedding if seen.logits is None else torch.cat([seen.embedding, seen.logits], 1)

    def _reconstruction(self, images: Tensor) -> Tensor | None:
        """(N,) error over the seeded masks; they are the same for every image, so that each is measured alone."""
        if self.decoder is None:
            return None
        total = torch.zeros(len(images), device=self.device)
        first = self.mask_seed * self.masks
        for number in range(first, first + self.masks):
            draws = torch.rand(self.decoder.draws, generator=torch.Generator().manual_seed(number))
            with self._autocast():
                total += self.decoder.errors(images, draws.expand(len(images), -1).to(self.device))
        return total / self.masks

    def look_moved(
        self, pixels: np.ndarray, objectives: Callable[[Mapping[str, Tensor]], Sequence[Tensor]], epsilon: float
    ) -> tuple[Seen, ...]:
        """What the network sees of images moved by one signed step along a gradient, once for each objective.

        x̃ = x − (ε / std)·sign(∇ₓ objective): the step is ε in units of pixels from 0 to 1, whatever the input's scale.

        Args:
            pixels: (N, H, W, 3) uint8.
            objectives: the columns of the images as they are → (N,) each, of one image alone; they are made smaller.
            epsilon: ε ≥ 0.

        Raises:
            ModelError: an objective that does not depend on the image.
        """
        with torch.inference_mode(False), torch.enable_grad():
            images = self._input(pixels).clone().requires_grad_()
            found = list(objectives(self._through(images).columns()))
            step = epsilon / torch.tensor(self.model.transform.std, device=self.device)[:, None, None]
            moved = []
            for index, objective in enumerate(found):
                if not objective.requires_grad:
                    raise ModelError("the network passes no gradient to its input, so images cannot be moved")
                (gradient,) = torch.autograd.grad(objective.sum(), images, retain_graph=index + 1 < len(found))
                moved.append(images.detach() - step * gradient.sign())
        with torch.inference_mode():
            return tuple(self._through(part).cpu(tokens=False) for part in moved)

    def _input(self, pixels: np.ndarray | Tensor) -> Tensor:
        if isinstance(pixels, Tensor):
            return pixels.to(self.device)
        return torch.from_numpy(self.model.transform.normalise(pixels)).to(self.device)

    def _through(self, images: Tensor) -> Seen:
        return Seen(*self._through_own(images)) if self._own else self._through_timm(images)

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"), self._products:
            yield

    def _through_timm(self, images: Tensor) -> Seen:
        module = cast(Any, self.module)
        indices = sorted({*self.inner, *(part.index for part in self.layers if part.index is not None)})
        earlier: dict[int, tuple[Tensor, Tensor | None]] = {}
        with self._autocast():
            if indices:
                prefix = bool(getattr(module, "num_prefix_tokens", 0))
                tokens, maps = module.forward_intermediates(
                    images, indices=indices, output_fmt="NLC", return_prefix_tokens=prefix
                )
                pairs = [item if isinstance(item, tuple) else (item, None) for item in maps]
                earlier = {index: pair for index, pair in zip(indices, pairs, strict=True)}
            else:
                tokens = module.forward_features(images)
        tokens = tokens.float()
        pooled = module.forward_head(tokens, pre_logits=True)
        classifier = self.model.classifier()
        logits = None if classifier is None else module.forward_head(tokens)
        parts = []
        for part in self.layers:
            if part.index is not None:
                patches, prefix_tokens = earlier[part.index]
                parts.append(_pool(patches.float(), prefix_tokens, part.pool))
            elif part.pool == "model":
                parts.append(pooled)
            else:
                parts.append(_pool(*_split(tokens, module), part.pool))
        inner = tuple(earlier[index][0].float() for index in self.inner)
        return Seen(
            torch.cat(parts, dim=1) if len(parts) > 1 else parts[0],
            logits,
            tuple(patches.mean(dim=1) for patches in inner),
            inner,
        )

    def _through_own(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        head = self.model.classifier()
        if head is None:
            with self._autocast():
                embedding = self.module(images)
            if not isinstance(embedding, Tensor) or embedding.ndim != 2:
                raise ModelError("a module without a named head must give one (N, D) tensor: pass head='layer name'")
            return embedding, None
        seen: list[Tensor] = []
        hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            with self._autocast():
                self.module(images)
        finally:
            hook.remove()
        if not seen or seen[-1].ndim != 2:
            raise ModelError(f"the layer {self.model.head_name!r} must see one (N, D) tensor a pass")
        embedding = seen[-1].float()
        return embedding, head(embedding)


def _decoder(model: Model) -> Reconstructing:
    """The pretext that the network was pre-trained in, around a copy of it."""
    if model.beside is None or not reconstructs(model.beside.name):
        raise ModelError(
            f"{model.name} has no decoder of pixels beside it, and so no reconstruction error: give the folder that "
            "`mood pretrain --pretext mae` or `--pretext simmim` wrote; fine-tuning drops the decoder"
        )
    pretext = make_pretext(model.beside.name, deepcopy(model.module), model.beside.settings)
    assert isinstance(pretext, Reconstructing)
    # The encoder's own again: MAE lays out its positions anew, and a table that SimMIM shares among blocks is no own.
    own = {f"encoder.{name}": value for name, value in model.module.state_dict().items()}
    encoder = {
        name: own.get(name, value) for name, value in pretext.state_dict().items() if name.startswith("encoder.")
    }
    pretext.load_state_dict({**encoder, **model.beside.tensors})
    return pretext


def _split(tokens: Tensor, module: Any) -> tuple[Tensor, Tensor | None]:
    """Final tokens as ((N, P, D) patches, (N, prefix, D) prefix tokens), whatever the network's layout."""
    if tokens.ndim == 4:
        channels_last = getattr(module, "output_fmt", "NCHW") == "NHWC"
        return (tokens.flatten(1, 2) if channels_last else tokens.flatten(2).transpose(1, 2)), None
    prefix = getattr(module, "num_prefix_tokens", 0)
    return tokens[:, prefix:], tokens[:, :prefix] if prefix else None


def _pool(patches: Tensor, prefix: Tensor | None, pool: str) -> Tensor:
    if pool == "cls":
        return cast(Tensor, prefix)[:, 0]
    if pool == "avg":
        return patches.mean(dim=1)
    return torch.cat((patches.mean(dim=1), patches.std(dim=1, correction=0)), dim=1)
