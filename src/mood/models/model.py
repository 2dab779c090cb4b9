"""A network with what belongs to it: how it is built, what it is fed, where its head is, what its weights have seen."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

import mood.models.architectures  # noqa: F401  registers mood's own names with timm
from mood.core.errors import InputError, ModelError
from mood.core.features import Head
from mood.core.transform import Transform


def patch_embedding(module: nn.Module) -> Any:
    """The layer that cuts the image into patches, whatever timm calls it in this network; None where there is none."""
    return getattr(module, "patch_embed", None) or next(
        (child for name, child in module.named_children() if name == "stem" and hasattr(child, "img_size")), None
    )


@dataclass(frozen=True, slots=True)
class Architecture:
    """A timm model name and the keyword arguments that differ from its defaults, all of which json can carry."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, *, pretrained: bool = False, **overrides: Any) -> nn.Module:
        """The module, with timm's own initialisation or its hub weights.

        Raises:
            ModelError: timm does not know the name, or the architecture does not take an option.
        """
        try:
            return timm.create_model(self.name, pretrained=pretrained, **{**self.options, **overrides})
        except TypeError as error:
            raise ModelError(f"model {self.name!r} does not take these options: {error}") from error
        except (AssertionError, RuntimeError, ValueError, ArithmeticError) as error:
            # What hub weights lack is told elsewhere, in other words.
            if pretrained and not isinstance(error, AssertionError):
                raise
            raise ModelError(f"model {self.name!r} cannot be built with these options: {error}") from error

    @property
    def known(self) -> bool:
        """Whether timm knows the name; else it is a folder or the embedded network, which was built before."""
        return self.name.split(".")[0] in timm.list_models(include_tags=False)

    def check(self) -> None:
        """Refuse what cannot be built, without memory for a single weight.

        Raises:
            ModelError: as `build`; or the patches do not fill the image.
        """
        if not self.known:
            return
        with torch.device("meta"):
            embed = patch_embedding(self.build())
        size, patch = getattr(embed, "img_size", None), getattr(embed, "patch_size", None)
        if size is None or patch is None or getattr(embed, "dynamic_img_pad", False):
            return
        for side, step in zip(size, patch, strict=True):
            if side % step:
                raise ModelError(
                    f"model {self.name!r}: patches of {step} pixels do not fill {side}: set img_size to a multiple of "
                    f"patch_size, such as {max(step, side // step * step)}"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of training that the weights went through.

    Attributes:
        stage: "tokenizer", "pretrain" or "finetune".
        data: name of the images.
        images: how many of them were seen.
        class_names: what was in those images, where the set says so.
        labelled: whether the labels were used.
        manifest: fingerprint of the set they were taken from.
        seed: of the hash cut that kept the other images out.
        held_out: fraction that the cut kept out.
        settings: the recipe's settings in words and numbers.
    """

    stage: str
    data: str
    images: int
    class_names: tuple[str, ...]
    labelled: bool
    manifest: str
    seed: int
    held_out: float
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """What pre-training left beside the network.

    Attributes:
        name: of the pretext.
        settings: keyword arguments of the pretext.
        tensors: its own weights, such as those of a decoder.
    """

    name: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def fingerprint(self) -> str:
        """Hex digest of all of it."""
        digest = hashlib.sha256(json.dumps([self.name, dict(self.settings)], sort_keys=True).encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(name.encode() + np.ascontiguousarray(tensor.float().numpy()).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False, kw_only=True)
class Model:
    """A network ready to embed images.

    Attributes:
        name: what the user called it.
        module: in evaluation mode.
        transform: what turns a file into its input; always the model's own, also for foreign images.
        architecture: how to build it again; None for the user's own module.
        head_name: dotted name of the last linear layer inside the user's own module; None for timm models, which know.
        class_names: names of the K logits where known.
        history: what the weights were trained on, in order; empty for random weights; None where nobody knows.
        seen: (n,) int64 keys of the training images (`image_keys`), sorted; None where nobody knows.
        source: where the weights came from, in words.
        beside: what pre-training left beside the network; None where it is gone, as after fine-tuning.
        pool: how `Embedder` pools this network unless it is told.
        layer: which layers it takes, likewise.
    """

    name: str
    module: nn.Module
    transform: Transform
    architecture: Architecture | None = None
    head_name: str | None = None
    class_names: tuple[str, ...] = ()
    history: tuple[Stage, ...] | None = None
    seen: Tensor | None = None
    source: str = ""
    beside: Beside | None = None
    pool: str = "model"
    layer: str = "last"

    def classifier(self) -> nn.Module | None:
        """The layer that turns the embedding into logits; None for an encoder.

        Raises:
            ModelError: the user's module has no layer of that name.
        """
        if self.head_name is not None:
            try:
                return self.module.get_submodule(self.head_name)
            except AttributeError:
                names = [name for name, child in self.module.named_modules() if isinstance(child, nn.Linear)]
                raise ModelError(
                    f"the module has no layer {self.head_name!r}; its linear layers are {', '.join(names) or 'none'}"
                ) from None
        # An encoder of timm has an identity for a head, and some networks have two heads.
        layer: Any = getattr(self.module, "get_classifier", lambda: None)()
        return layer if isinstance(layer, nn.Module) and not isinstance(layer, nn.Identity) else None

    def head(self) -> Head | None:
        """The classifier as a weight and a bias; None for an encoder or where it is not one linear layer."""
        layer = self.classifier()
        if not isinstance(layer, nn.Linear):
            return None
        bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias.detach().cpu()
        return Head(layer.weight.detach().cpu(), bias)

    def fingerprint(self) -> str:
        """Hex digest of architecture, weights and input transform: two models with the same one are the same.

        Of a user's own module it has the name of its class and of its head, and knows no code: see `Embedder.probe`.
        """
        digest = hashlib.sha256()
        own = f"{type(self.module).__qualname__} {self.head_name}"
        digest.update((own if self.architecture is None else repr(self.architecture)).encode())
        digest.update(self.transform.fingerprint.encode())
        _digest_weights(digest, self.module)
        return digest.hexdigest()

    def seen_among(self, hashes: Sequence[str]) -> np.ndarray:
        """(N,) bool: which of these images the weights were trained on.

        Raises:
            InputError: nobody knows what these weights have seen.
        """
        if self.seen is None:
            raise InputError(f"what the weights of {self.name!r} were trained on is not known")
        return np.isin(image_keys(hashes).numpy(), self.seen.numpy())


def weights_digest(module: nn.Module) -> str:
    """Hex digest of the names, types, shapes and values of a module's weights."""
    digest = hashlib.sha256()
    _digest_weights(digest, module)
    return digest.hexdigest()


def _digest_weights(digest: "hashlib._Hash", module: nn.Module) -> None:
    for name, tensor in sorted(module.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())


def image_keys(hashes: Sequence[str]) -> Tensor:
    """(N,) int64: the first 8 bytes of each image's hash, enough to recognise it among billions."""
    return torch.tensor([int(value[:16], 16) - 2**63 for value in hashes], dtype=torch.int64)
