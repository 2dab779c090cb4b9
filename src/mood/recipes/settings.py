"""Settings that several commands share: a base for each thing that they have in common.

A config says what is special to its command and inherits the rest. Flags come in that order, bases as they are listed.
Where a config names an inherited setting again, its default, its range or what it means is another one; the words stay
those of the base unless it brings its own.
"""

from pathlib import Path
from typing import Annotated, Literal

from mood.core.artifact import describe
from mood.core.config import Argument, NotInFingerprint, config
from mood.core.ranges import Count, Level, NotNegative, Part, Seed, Share, Workers


@config
class OutputConfig:
    """Of every command that writes an output."""

    overwrite: Annotated[bool, NotInFingerprint] = False
    """replace an output of another configuration"""


@config
class ImagesConfig:
    """Of every command that reads images."""

    workers: Annotated[Workers, NotInFingerprint] = 1
    """processes that decode images"""
    data_root: Annotated[tuple[str, ...], NotInFingerprint] = ()
    """folders in which named sets are looked for"""


@config
class PassConfig(ImagesConfig):
    """Of every command in which images pass through a network and nothing learns."""

    batch_size: Count = 64
    """images a pass"""
    device: str = "auto"
    """auto, cpu or cuda"""


@config
class DetectorConfig(PassConfig):
    """Of every command that uses a saved detector."""

    detector: Annotated[Path, Argument("DIR")]
    """folder that `mood fit` wrote"""

    def check_detector(self) -> None:
        """Refuse a folder that mood did not write before anything is loaded that takes seconds.

        Raises:
            ArtifactError: it is none.
        """
        describe(self.detector)


@config
class NetworkConfig:
    """How the network is opened that `model` names."""

    checkpoint: Path | None = None
    """local weights for a timm name"""
    model_options: tuple[str, ...] = ()
    """KEY=VALUE arguments of a timm architecture"""
    transform_options: tuple[str, ...] = ()
    """KEY=VALUE settings of the input transform in place of the network's own, such as crop_pct=0.875"""


@config
class EmbeddingConfig:
    """What of a network is the embedding."""

    pool: Literal["model", "cls", "avg", "mean+std"] | None = None
    """model = what the head sees, cls, avg, or mean+std of the patch tokens; the network's own choice unless said"""
    layer: str | None = None
    """last, a block number, or several joined by +; the network's own choice unless said"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto, fp32 or bf16; auto = bf16 where the hardware is fast at it"""


@config
class MasksConfig:
    """Which masks the score of a masked-image model looks through."""

    masks: Count = 8
    """random masks that mim_reconstruction averages the decoder's error over, the same for every image"""
    mask_seed: Seed = 0
    """which masks these are"""


@config
class SelectionConfig:
    """Which of the known images are taken, and what their classes are."""

    coarse: bool = False
    """the coarse labels are the classes, where a set has two levels of them (CIFAR-100)"""
    classes: tuple[str, ...] = ()
    """only these classes of the known images"""
    limit: Count | None = None
    """take only so many images, evenly spaced"""


@config
class PromiseConfig:
    """What is promised of a detector, and from which p-values."""

    conformal: Literal["split", "cross", "by-class"] = "split"
    """split: images are held out to calibrate on; cross: every image fits and calibrates by turns, for few images;
    by-class: split, and the promise holds for each predicted class"""
    guarantee: Literal["marginal", "conditional"] = "marginal"
    """marginal: alpha holds on average over calibration sets; conditional: with this one, with `confidence`"""
    confidence: Level = 0.9
    """of the conditional guarantee"""
    bound: Literal["simes", "dkwm", "monte-carlo"] = "simes"
    """behind the conditional guarantee; simes is sharpest for small alphas, monte-carlo from 0.1"""
    ties: Literal["conservative", "randomised"] = "conservative"
    """conservative: equal scores count as more unusual, and flag less; randomised: a lot decides, drawn from the id"""


@config
class StageConfig(ImagesConfig, OutputConfig):
    """Of every stage of training. What has no default here has one in each stage."""

    epochs: Count
    """passes over the images"""
    batch_size: Count
    """images a step"""
    warmup_epochs: NotNegative | None = None
    """epochs of linear warm-up; a twentieth of all unless said"""
    weight_decay: NotNegative
    """the optimiser's weight decay"""
    clip: NotNegative
    """largest gradient norm; 0 does not clip"""
    crop_scale: Part
    """smallest share of an image that a random crop keeps"""
    held_out: Share = 0.1
    """share of the images, cut by their hash, that no stage sees: they calibrate the detector later"""
    limit: Count | None = None
    """take only so many images of each set, evenly spaced"""
    seed: Seed = 0
    """of every draw and of every cut"""
    compile: bool = False
    """compile the network: a minute at the start, faster steps after"""
    device: Annotated[str, NotInFingerprint] = "auto"
    """auto, cpu or cuda"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto = bf16 where the hardware is fast at it"""
    workers: Annotated[Workers, NotInFingerprint] = 1
    """processes that read and augment images"""
    save_seconds: Annotated[NotNegative, NotInFingerprint] = 120.0
    """seconds between checkpoints; a killed run starts again from the last one"""


@config
class NetworkStageConfig(StageConfig):
    """Of the stages that train a network, with images and weights that may be too many for one process."""

    batch_size: Count
    """images a step, of all processes together"""
    weight_decay: NotNegative = 0.05
    stream: bool = False
    """the images are tar shards or Parquet files, named by one glob, and too many for a list in memory: read shard by
    shard, shuffled in stretches"""
    strategy: Annotated[Literal["auto", "ddp", "fsdp"], NotInFingerprint] = "auto"
    """of several processes that torchrun started: ddp = each holds the network, as auto does; fsdp = each holds a shard
    of it"""
    accumulate: Annotated[Count, NotInFingerprint] = 1
    """parts of each process's share of a batch whose gradients are added up: so much less memory, the same result"""
    checkpoint_activations: Annotated[bool, NotInFingerprint] = False
    """compute the inner values of each block again in the backward pass: less memory, a third more time"""
