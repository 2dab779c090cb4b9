"""`mood tokenizer`: images become words of a visual vocabulary, which BEiT then learns to predict."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mood.core.config import Argument, NotInFingerprint, config, to_dict
from mood.core.errors import InputError
from mood.core.ranges import Count, NotNegative, Part, Positive, Probability, Share
from mood.recipes.settings import StageConfig

if TYPE_CHECKING:
    from torch import Tensor

    from mood.data import Augment, Source, TrainingImages
    from mood.models import DiscreteVae, VaeShape
    from mood.recipes.inputs import TrainingSet
    from mood.training import Optimisation

PICTURE = "reconstructions.png"


@config
class TokenizerConfig(StageConfig):
    """Train a discrete VAE, whose codes are the tokens that `mood pretrain --pretext beit` predicts."""

    data: Annotated[tuple[str, ...], Argument("DATA...")]
    """images to learn from: folders, Parquet files or named sets; labels are not used"""
    output: Annotated[Path, NotInFingerprint]
    """folder for the tokenizer"""
    image_size: tuple[Count, ...] = (32,)
    """height and width of the images in pixels, or the side of a square"""
    grid: tuple[Count, ...] = (8,)
    """rows and columns of tokens, or how many there are on each side; a network that learns from them has as many
    patches"""
    codes: Annotated[int, Field(ge=2)] = 512
    """how many different tokens there are; 8192 in DALL-E's"""
    width: Count = 16
    """channels at the image's own resolution, doubled with each step to the grid; 256 in DALL-E's"""
    code_width: Count = 64
    """width of the vector that a code stands for; 128 in DALL-E's"""
    blocks: Count = 1
    """residual blocks between two steps; 2 in DALL-E's"""
    reconstruction: Literal["logit_laplace", "mse"] = "logit_laplace"
    """how an image and its reconstruction are compared: by DALL-E's likelihood, or by squared errors"""
    kl_weight: NotNegative = 0.1
    """weight of the distance of each cell's choice from all codes alike, once it has risen; 6.6 in DALL-E's"""
    kl_warmup: Probability = 0.1
    """share of the training in which that weight rises from 0"""
    balance: NotNegative = 5.0
    """weight on the distance of what a whole batch uses of the codes from all alike; 0, which is off, in DALL-E's"""
    temperature: Positive = 1.0
    """of the Gumbel-softmax relaxation at the start"""
    min_temperature: Positive = 0.1
    """and at its end; it falls along a cosine"""
    straight_through: Probability = 0.2
    """last share of the training, in which the decoder sees one code a cell and no mixture"""
    decoder_first: Share = 0.1
    """first share, in which only the decoder learns: from an untrained one the encoder would learn to use few codes"""
    lr: Positive = 2e-3
    """learning rate at the end of the warm-up"""
    ema: Share = 0.99
    """decay of the averaged weights that are kept; 0 keeps the last ones"""
    color_jitter: Annotated[float, Field(ge=0, le=100)] = 0.0
    """strength of changes of brightness, contrast and saturation"""
    measured: Share = 0.05
    """share of the other images, by a second cut, that it is measured on and does not learn from"""
    epochs: Count = 30
    batch_size: Count = 32
    weight_decay: NotNegative = 1e-4
    clip: NotNegative = 1.0
    crop_scale: Part = 0.2
    """smallest share of an image that a random crop keeps: what the tokens are asked for later is cropped too"""


@dataclass(frozen=True)
class TokenizerResult:
    """What `mood tokenizer` leaves.

    Attributes:
        output: the folder.
        images: that it learned from, with those that could not be read.
        metrics: the last of each: `loss`, `reconstruction` and `kl` while it learned; and, on images that it did not
            learn from, `measured_reconstruction`, `measured_mse`, `measured_kl`, `codes_used` and `perplexity`.
        reused: whether it was there already.
        rejected: images that could not be read.
    """

    output: Path
    images: int
    metrics: Mapping[str, float]
    reused: bool
    rejected: int = 0

    def summary(self) -> str:
        """One line for a person."""
        from mood.recipes.rejected import told

        if self.reused:
            return f"{self.output} was already finished with this configuration; nothing to do"
        return (
            f"trained on {self.images - self.rejected} images, loss {self.metrics['loss']:.4f}; on others it uses "
            f"{self.metrics['codes_used']:.0%} of its codes with perplexity {self.metrics['perplexity']:.0f}; the "
            f"tokenizer is in {self.output}{told(self.rejected)}"
        )


def shape_of(config: TokenizerConfig) -> "VaeShape":
    """The discrete VAE that the config asks for.

    Raises:
        InputError: a size or a grid of more than two numbers.
        ModelError: a number that is out of range, or a grid that does not divide the image.
    """
    from mood.models import VaeShape

    return VaeShape(
        codes=config.codes,
        image_size=_pair("image_size", config.image_size),
        grid=_pair("grid", config.grid),
        width=config.width,
        code_width=config.code_width,
        blocks=config.blocks,
        reconstruction=config.reconstruction,
    )


def _pair(name: str, value: tuple[int, ...]) -> tuple[int, int]:
    if len(value) not in (1, 2):
        raise InputError(f"{name} is {list(value)}; it must be one number, or two: height and width")
    return value[0], value[-1]


def check(config: TokenizerConfig) -> "VaeShape":
    """Refuse what no tokenizer can be, before an image is looked at, and give its shape.

    Raises:
        InputError: a setting that is out of range.
        ModelError: a grid that does not divide the image.
    """
    _schedule(config)
    _augment(config)
    _optimisation(config, config.device, config.precision)
    return shape_of(config)


def chosen_images(config: TokenizerConfig, sources: "Sequence[Source]") -> "tuple[TrainingSet, Source]":
    """The images that are learned from, and those that the tokenizer is measured on.

    Raises:
        InputError: none are left to measure on, or the others do not fill a batch.
    """
    from mood.recipes.inputs import check_batch_size, training_set

    chosen = training_set(
        sources,
        stage="tokenizer",
        labelled=False,
        seed=config.seed,
        fraction=config.held_out,
        settings={"codes": config.codes, "epochs": config.epochs, "lr": config.lr},
        measured=config.measured,
    )
    if chosen.measured is None:
        raise InputError(
            f"measured is {config.measured}, which leaves none of {len(chosen.source)} images to measure the "
            "tokenizer on: raise it, or bring more images"
        )
    check_batch_size(len(chosen.source), config.batch_size)
    return chosen, chosen.measured


def _schedule(config: TokenizerConfig) -> "Schedule":
    return Schedule(
        temperature=config.temperature,
        min_temperature=config.min_temperature,
        kl_weight=config.kl_weight,
        balance=config.balance,
        kl_warmup=config.kl_warmup,
        straight_through=config.straight_through,
        decoder_first=config.decoder_first,
    )


def _optimisation(config: TokenizerConfig, device: str, precision: str) -> "Optimisation":
    from mood.training import Optimisation

    return Optimisation(
        epochs=config.epochs,
        lr=config.lr,
        warmup_epochs=config.epochs / 20 if config.warmup_epochs is None else config.warmup_epochs,
        weight_decay=config.weight_decay,
        clip=config.clip,
        ema=config.ema,
        seed=config.seed,
        device=device,
        precision=precision,
        compile=config.compile,
        save_seconds=config.save_seconds,
    )


def _augment(config: TokenizerConfig) -> "Augment":
    from mood.data import Augment

    return Augment(scale=(config.crop_scale, 1.0), color_jitter=config.color_jitter)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How temperature and weights move through the training, by the share of it that is done.

    Attributes:
        temperature: at the start.
        min_temperature: where the straight-through part begins, and in it.
        kl_weight: after it has risen.
        balance: all along.
        kl_warmup: share in which it rises.
        straight_through: share at the end.
        decoder_first: share in which the encoder waits.

    Raises:
        InputError: a temperature that would rise.
    """

    temperature: float
    min_temperature: float
    kl_weight: float
    balance: float
    kl_warmup: float
    straight_through: float
    decoder_first: float

    def __post_init__(self) -> None:
        """Check what the ranges of the settings leave open."""
        if self.min_temperature > self.temperature:
            raise InputError(
                f"min_temperature is {self.min_temperature}; it must be at most temperature ({self.temperature:g})"
            )

    def at(self, done: float) -> tuple[float, float, bool, bool]:
        """Temperature, weight, whether codes are hard, whether they are fixed, once `done` in [0, 1) is behind us."""
        relaxed = 1 - self.straight_through
        fallen = min(done / relaxed, 1.0) if relaxed else 1.0
        cosine = (1 + math.cos(math.pi * fallen)) / 2
        temperature = self.min_temperature + (self.temperature - self.min_temperature) * cosine
        risen = min(done / self.kl_warmup, 1.0) if self.kl_warmup else 1.0
        return temperature, self.kl_weight * risen, done >= relaxed, done < self.decoder_first


@dataclass
class _VaeTask:
    module: "DiscreteVae"
    images: "TrainingImages"
    measured: "Source"
    settings: TokenizerConfig
    schedule: Schedule
    precision: str
    scratch: Path
    steps_per_epoch: int = field(init=False)

    def __post_init__(self) -> None:
        self.steps_per_epoch = len(self.images) // self.settings.batch_size

    def batches(self, epoch: int, start: int) -> Iterable[Any]:
        import torch

        from mood.data import training_batches
        from mood.models import Shown
        from mood.recipes.rejected import noted

        batches = training_batches(
            self.images,
            epoch=epoch,
            batch_size=self.settings.batch_size,
            workers=self.settings.workers,
            start_batch=start,
        )
        total = self.steps_per_epoch * self.settings.epochs
        balance = torch.tensor(self.schedule.balance)
        for number, batch in enumerate(noted(batches, self.scratch), start=epoch * self.steps_per_epoch + start):
            temperature, weight, hard, fixed = self.schedule.at(number / total)
            yield Shown(batch.views[0], torch.tensor(temperature), torch.tensor(weight), balance, hard, fixed)

    def loss(self, module: Any, batch: Any, epoch: int) -> "tuple[Tensor, Mapping[str, Tensor]]":
        loss, parts = module(batch)
        return loss, {**parts, "temperature": batch.temperature}

    def after_step(self, done: float) -> None:
        pass

    def evaluate(self, module: Any) -> Mapping[str, float]:
        """On the images that it does not learn from, with one code a cell, as the tokens are used later."""
        import torch

        from mood.models import codebook_usage, kl_to_uniform, map_pixels
        from mood.recipes.reconstructions import pictures

        module.eval()
        counts = torch.zeros(module.shape.codes, dtype=torch.int64)
        sums, total = torch.zeros(3, dtype=torch.float64), 0
        device = next(module.parameters()).device
        for images in pictures(self.measured, self.images.size, self.settings.workers):
            images = images.to(device)
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                logits = module.encoder(map_pixels(images))
                tokens = logits.argmax(dim=1)
                given = module.decode(tokens)
            counts += tokens.flatten().bincount(minlength=len(counts)).cpu()
            parts = (module.error(images, given), (module.images(given) - images).square(), kl_to_uniform(logits))
            sums += len(images) * torch.stack([part.mean().double().cpu() for part in parts])
            total += len(images)
        error, mse, kl = (sums / max(total, 1)).tolist()
        used, perplexity = codebook_usage(counts)
        return {
            "measured_reconstruction": error,
            "measured_mse": mse,
            "measured_kl": kl,
            "codes_used": used,
            "perplexity": perplexity,
        }


def tokenizer(config: TokenizerConfig, *, source: "Source | None" = None) -> TokenizerResult:
    """Train a tokenizer and write it as a folder; start again to resume.

    Args:
        config: see `TokenizerConfig`.
        source: opened images in place of `config.data`.

    Raises:
        MoodError: bad data, a grid that does not divide the image, an output that is taken, several processes.
    """
    import torch

    from mood.data import TrainingImages, open_source, training_batches
    from mood.models import DiscreteVae, map_pixels, resolve_device, resolve_precision, save_vae
    from mood.recipes.inputs import images_of_last_stage, keep_records, last_metrics
    from mood.recipes.reconstructions import draw
    from mood.recipes.rejected import rejections
    from mood.recipes.together import open_output_of_all
    from mood.training import processes, seed_everything, train

    shape = check(config)
    together = processes(device=str(resolve_device(config.device)))
    sources = (
        [open_source(name, roots=config.data_root, limit=config.limit) for name in config.data]
        if source is None
        else [source]
    )
    settings = to_dict(config) | {"images": [item.manifest.fingerprint for item in sources]}
    with open_output_of_all(together, config.output, settings, overwrite=config.overwrite) as output:
        if output.finished:
            learned = images_of_last_stage(config.output)
            rejected = len(rejections(config.output))
            return TokenizerResult(config.output, learned, last_metrics(config.output), True, rejected)
        if not together.alone:
            raise InputError(
                f"a tokenizer is trained by one process, and torchrun started {together.count}: train it without "
                f"torchrun first; these will find it in {config.output}"
            )
        chosen, measured = chosen_images(config, sources)
        seed_everything(config.seed)
        vae = DiscreteVae(shape)
        device = together.device
        if device.type == "cpu":
            # The order in which oneDNN's convolutions are fast in bf16: a third less time for a step.
            vae.to(memory_format=torch.channels_last)
        images = TrainingImages(
            chosen.source,
            (_augment(config),),
            size=shape.image_size,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            seed=config.seed,
        )
        first = next(iter(training_batches(images, epoch=0, batch_size=config.batch_size)))
        vae.encoder.place_codes(map_pixels(first.views[0]))
        precision = resolve_precision(config.precision, device)
        trained = train(
            _VaeTask(vae, images, measured, config, _schedule(config), precision, output.scratch),
            _optimisation(config, str(device), precision),
            output.scratch,
            description="tokenizer",
            together=together,
        )
        assert isinstance(trained, DiscreteVae)
        save_vae(output.work, trained, history=chosen.stages, seen=chosen.keys)
        draw(trained, measured, output.work / PICTURE)
        metrics = keep_records(output.scratch, output.work)
        output.commit()
    return TokenizerResult(config.output, len(images), metrics, False, len(rejections(config.output)))
