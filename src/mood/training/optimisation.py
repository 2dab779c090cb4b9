"""The numbers of a training run."""

from dataclasses import dataclass
from typing import Literal

from mood.core.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimisation:
    """How a task is optimised.

    Attributes:
        epochs: passes over the data.
        lr: learning rate at the end of the warm-up.
        min_lr: learning rate at the end.
        warmup_epochs: epochs of linear warm-up from 0; may be a fraction.
        optimiser: "adamw", or "sgd", with momentum and without Nesterov's step.
        weight_decay: the optimiser's, on weights of two and more dimensions only.
        betas: AdamW's; the first one is the momentum of SGD.
        layer_decay: learning-rate factor from each layer to the one below it; 1 is none.
        clip: largest gradient norm; 0 is no clipping.
        ema: decay of the averaged weights; 0 keeps none.
        seed: of every draw.
        device: "auto", or what torch calls it: "cpu", "cuda", "cuda:1".
        precision: "fp32" or "bf16".
        accumulate: parts whose gradients are added up before a step, in each process.
        compile: compile the module (about a minute at the start; worth it from some minutes of training on).
        save_seconds: how often a checkpoint is written.

    Raises:
        InputError: a number that no training can be done with.
    """

    epochs: int
    lr: float
    min_lr: float = 0.0
    warmup_epochs: float = 0.0
    optimiser: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    layer_decay: float = 1.0
    clip: float = 0.0
    ema: float = 0.0
    seed: int = 0
    device: str = "auto"
    precision: str = "fp32"
    accumulate: int = 1
    compile: bool = False
    save_seconds: float = 120.0

    def __post_init__(self) -> None:
        """Check every number before anything is built."""
        for name, value, sound, expected in (
            ("epochs", self.epochs, self.epochs >= 1, "at least 1"),
            ("lr", self.lr, self.lr > 0, "more than 0"),
            ("min_lr", self.min_lr, 0 <= self.min_lr <= self.lr, f"between 0 and lr ({self.lr:g})"),
            (
                "warmup_epochs",
                self.warmup_epochs,
                0 <= self.warmup_epochs < self.epochs,
                f"from 0 to below epochs ({self.epochs})",
            ),
            ("optimiser", self.optimiser, self.optimiser in ("adamw", "sgd"), "adamw or sgd"),
            ("weight_decay", self.weight_decay, self.weight_decay >= 0, "0 or more"),
            ("betas", self.betas, all(0 <= beta < 1 for beta in self.betas), "from 0 to below 1"),
            ("layer_decay", self.layer_decay, 0 < self.layer_decay <= 1, "above 0 and at most 1, which is none"),
            ("clip", self.clip, self.clip >= 0, "0, which is none, or more"),
            ("ema", self.ema, 0 <= self.ema < 1, "from 0, which is none, to below 1"),
            ("accumulate", self.accumulate, self.accumulate >= 1, "1, which is none, or more"),
            ("save_seconds", self.save_seconds, self.save_seconds >= 0, "0 or more"),
        ):
            if not sound:
                raise InputError(f"{name} is {value}; it must be {expected}")
