"""What `mood pretrain` and `mood finetune` give to the loop: a network, the parts of its batches, and a loss."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timm.data import Mixup
from timm.models import group_parameters
from torch import Tensor
from torch.nn.functional import cross_entropy

from mood.core.errors import DataError, InputError, ModelError
from mood.core.transform import Transform
from mood.data import Source, TrainingBatch, TrainingImages, training_batches
from mood.models import Pretext, Views
from mood.recipes.accuracy import right_ones
from mood.recipes.rejected import noted
from mood.recipes.settings import NetworkStageConfig
from mood.training import Processes, Share, uniform

if TYPE_CHECKING:
    from mood.recipes.finetune import FinetuneConfig
    from mood.recipes.pretrain import PretrainConfig


@dataclass
class ImagesTask:
    """A network that learns from images, batch by batch.

    Attributes:
        module: the network.
        images: that it learns from.
        settings: of the run.
        scratch: folder for what a run that goes on must know.
    """

    module: Any
    images: TrainingImages
    settings: NetworkStageConfig
    scratch: Path
    steps_per_epoch: int = field(init=False)
    batch_size: int = field(init=False)

    def __post_init__(self) -> None:
        """Count the steps."""
        self.batch_size = self.settings.batch_size
        self.steps_per_epoch = len(self.images) // self.batch_size

    def read(self, epoch: int, start: int, share: Share) -> Iterator[TrainingBatch]:
        """The parts of the batches of an epoch, from batch `start` on."""
        batches = training_batches(
            self.images,
            epoch=epoch,
            batch_size=self.batch_size,
            workers=self.settings.workers,
            start_batch=start,
            parts=share.parts,
            of=share.of,
        )
        return noted(batches, self.scratch, share.first // share.own)

    def parts(self, epoch: int, start: int, share: Share) -> Iterable[Any]:
        """What the network is given of them."""
        return self.read(epoch, start, share)

    def batches(self, epoch: int, start: int) -> Iterable[Any]:
        """The same, whole."""
        return self.parts(epoch, start, Share())

    def items(self, part: Any) -> Tensor:
        """(n,) int64, which images are in a part."""
        positions: Tensor = part.positions
        return positions

    def after_step(self, done: float) -> None:
        """Nothing follows."""

    def evaluate(self, module: Any) -> Mapping[str, float]:
        """Nothing is measured."""
        return {}


@dataclass
class PretextTask(ImagesTask):
    """The loss is the pretext's own, and so are the draws that belong to each image."""

    module: Pretext
    settings: "PretrainConfig"

    def parts(self, epoch: int, start: int, share: Share) -> Iterable[Views]:
        """Views, with the draws for each image and what is hidden of it."""
        for part in self.read(epoch, start, share):
            draws = uniform(self.settings.seed, epoch, part.positions, self.module.draws)
            yield Views(part.views, draws, part.labels, part.twin, self.module.hide(draws), part.positions)

    def weight(self, part: Views) -> float:
        """What the pretext's loss is the mean of."""
        return self.module.weight(part)

    def loss(self, module: Any, part: Views, epoch: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The pretext's."""
        loss, extra = module(part)
        return loss, extra

    def after_step(self, done: float) -> None:
        """A slow copy follows."""
        self.module.after_step(done)


@dataclass
class ClassifierTask(ImagesTask):
    """Cross-entropy with smoothed or mixed labels, and the pull of L2-SP.

    Attributes:
        classes: outputs of the head.
        transform: of the images that the accuracy is measured on.
        test: those images, if there are any.
        precision: "fp32" or "bf16", in which it is measured.
        anchors: where the weights of the body started, by name.
        together: the processes that share the measuring.
    """

    settings: "FinetuneConfig"
    classes: int
    transform: Transform
    test: Source | None
    precision: str
    anchors: Mapping[str, Tensor]
    together: Processes

    def __post_init__(self) -> None:
        """Count the steps, and make the mixture."""
        super().__post_init__()
        mixes = self.settings.mixup or self.settings.cutmix
        self.mixup = (
            Mixup(
                self.settings.mixup,
                self.settings.cutmix,
                label_smoothing=self.settings.label_smoothing,
                num_classes=self.classes,
            )
            if mixes
            else None
        )

    def weight(self, part: TrainingBatch) -> float:
        """Images."""
        return float(len(part.positions))

    def loss(self, module: Any, part: Any, epoch: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Of one part, with the share of it that was named rightly."""
        (pixels,), labels = part.views, part.labels
        smoothing = self.settings.label_smoothing
        if self.mixup is not None and len(pixels) % 2 == 0:
            # timm's mixing pairs a batch with its mirror image and smooths the labels itself.
            pixels, labels = self.mixup(pixels, labels)
            smoothing = 0.0
        logits = module(pixels).float()
        loss = cross_entropy(logits, labels, label_smoothing=smoothing)
        if self.settings.l2_sp:
            loss = loss + self.settings.l2_sp / 2 * self.distance()
        hard = labels.argmax(1) if labels.ndim == 2 else labels
        return loss, {"train_accuracy": (logits.detach().argmax(1) == hard).float().mean()}

    def distance(self) -> Tensor:
        """Squared Euclidean distance of the body's weights from where they started (Li et al., ICML 2018)."""
        moved: list[Tensor] = [
            (parameter - self.anchors[name]).square().sum()
            for name, parameter in self.module.named_parameters()
            if name in self.anchors and parameter.requires_grad
        ]
        return sum(moved[1:], start=moved[0])

    def evaluate(self, module: Any) -> Mapping[str, float]:
        """The accuracy, where there are images to measure it on.

        Raises:
            DataError: not one of them can be read.
        """
        test = self.test
        if test is None:
            return {}
        workers, place = self.settings.workers, (self.together.number, self.together.count)
        measured = self.together.attempt(
            lambda: right_ones(module, self.transform, test, self.precision, workers, place)
        )
        right, total = self.together.sum(*measured)
        if not total:
            raise DataError(f"not one image of {test.name} could be read")
        return {"accuracy": right / total}


def compute_again(module: Any, name: str) -> None:
    """Let a network compute the inner values of each block a second time instead of keeping them.

    Raises:
        ModelError: timm has no such way for it.
    """
    try:
        if hasattr(module, "set_grad_checkpointing"):
            module.set_grad_checkpointing()
            return
    except AssertionError:  # so do many networks of timm say that they cannot
        pass
    raise ModelError(f"{name} cannot compute its inner values again: leave checkpoint_activations out")


def freeze(module: Any, blocks: int, head: set[str]) -> None:
    """Keep the weights of the lowest blocks and of all below them; -1 keeps all but the head.

    Raises:
        InputError: another number, or more blocks than there are.
        ModelError: timm does not say which weights of this network lie how deep.
    """
    if blocks == 0:
        return
    if blocks == -1:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name.rpartition(".")[0] in head)
        return
    if not hasattr(module, "group_matcher"):
        raise ModelError(
            f"timm does not say how deep the weights of {type(module).__name__} lie: set freeze to 0 or -1"
        )
    # Layer 0 is the stem; the last one holds the norm and the head.
    depth = group_parameters(module, module.group_matcher(coarse=False), reverse=True)
    highest = max(depth.values()) - 1
    if not 0 < blocks <= highest:
        raise InputError(f"freeze is {blocks}; it must be -1 (all but the head) or from 0 to {highest}, the blocks")
    for name, parameter in module.named_parameters():
        if depth[name] <= blocks:
            parameter.requires_grad_(False)
