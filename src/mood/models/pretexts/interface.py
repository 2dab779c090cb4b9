"""What every pretext is: a network, what it is shown, and a loss that needs no knowledge of what is out there."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor, nn

from mood.core.errors import ModelError
from mood.models.weights import ImportReport, load_weights


class Views(NamedTuple):
    """A batch as a pretext sees it.

    Attributes:
        images: one (N, 3, H, W) normalised tensor for each view of the same N images.
        draws: (N, `Pretext.draws`) uniform numbers in [0, 1), each row a function of (seed, epoch, image).
        labels: (N,) int64, or None where the images have none.
        twin: (N, 3, h, w) in [0, 1]: the crop of the first view once more, at `Pretext.twin_size`; None where that
            is None.
        mask: (N, P) bool, True where a patch is hidden: what `Pretext.hide` made of the draws; None where it hides
            none.
        positions: (N,) int64, which images they are; None where nobody asks.
    """

    images: tuple[Tensor, ...]
    draws: Tensor
    labels: Tensor | None = None
    twin: Tensor | None = None
    mask: Tensor | None = None
    positions: Tensor | None = None


class Pretext(nn.Module):
    """An encoder with what it needs beside it to be pre-trained, and the loss.

    A subclass takes the encoder first and its own settings as keyword arguments; their defaults are those that
    `mood pretrain` uses where nothing is said.

    Attributes:
        encoder: timm's network, whose weights are what is wanted.
        views: augmented views of each image in a batch.
        draws: random numbers for each image in a batch.
        labelled: whether the images need labels.
        trained: whether there is anything to train.
        twin_size: (h, w) of the second rendering of the crop, for a tokenizer; None is none.
        options: arguments of timm's architecture that the pretext's own recipe has, unless others are said.
        compares: whether the loss of an image depends on the others in its batch, so that no gradient can be added up
            from parts of it.
        drop_path: stochastic depth of the last block in that recipe.
        color_jitter: strength in that recipe, for pretexts whose augmentation is a crop, a mirror image and colours.
    """

    encoder: nn.Module
    views: int = 1
    draws: int = 0
    labelled: bool = False
    trained: bool = True
    compares: bool = False
    twin_size: tuple[int, int] | None = None
    options: Mapping[str, Any] = MappingProxyType({})
    drop_path: float = 0.0
    color_jitter: float = 0.0

    def initialise(self) -> None:
        """Give a new encoder the initial weights of the pretext's paper, where it has its own."""

    def forward(self, batch: Views) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss (a scalar) and what to log beside it."""
        raise NotImplementedError

    def official(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The tensors of an official file that belong beside the encoder, under the names that they have here.

        Args:
            state: as `mood.models.read_state` gives it.
        """
        return state

    def load_official(self, state: Mapping[str, Tensor]) -> ImportReport:
        """Fill the encoder and all that is beside it from a file of the pretext's own official code.

        Args:
            state: as `mood.models.read_state` gives it.

        Raises:
            ModelError: it is no such file, what is beside the encoder has another shape, or the encoder does not fit;
                nothing was changed then.
        """
        given = self.official(state)
        beside = {name: value for name, value in self.state_dict().items() if not name.startswith("encoder.")}
        for name, value in beside.items():
            if name not in given:
                raise ModelError(f"this is no checkpoint of {type(self).__name__}: it has no {name}")
            if given[name].shape != value.shape:
                raise ModelError(
                    f"{name} is {tuple(given[name].shape)} in the checkpoint and {tuple(value.shape)} here: take the "
                    "architecture and the settings of the pretext that it was made with"
                )
        report = load_weights(self.encoder, state)
        self.load_state_dict({name: given[name] for name in beside}, strict=False)
        return report

    def hide(self, draws: Tensor) -> Tensor | None:
        """The masks of a batch from its (N, `draws`) numbers, called where batches are made; None is no mask.

        On the CPU and outside of the compiled step, so that it may take as many turns as it needs.
        """
        return None

    def weight(self, batch: Views) -> float:
        """How many things the loss of a batch is the mean of: images, unless a pretext counts others."""
        return float(len(batch.images[0]))

    def after_step(self, done: float) -> None:
        """Called after each step of the optimiser with the share of the run that is done, in (0, 1]."""

    def release(self) -> nn.Module:
        """The encoder as timm made it, freed of whatever the pretext put into it."""
        return self.encoder


def patch_size(image: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """(height, width) in pixels of the patches that a grid cuts an image into.

    Raises:
        ModelError: they do not fill it, so that no pixel could be said to belong to one of them.
    """
    for side, count in zip(image, grid, strict=True):
        if side % count:
            raise ModelError(
                f"{count} patches to a side do not fill {side} pixels: choose another img_size, as 32 or 64"
            )
    return image[0] // grid[0], image[1] // grid[1]
