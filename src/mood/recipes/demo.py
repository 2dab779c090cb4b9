"""`mood demo`: the main job from end to end on photographs that come with mood."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mood.core.config import NotInFingerprint, config, to_dict
from mood.core.ranges import Count, Level, Seed, Workers

if TYPE_CHECKING:
    from mood.recipes.evaluate import Evaluation

# Worn on head and feet: near the known clothes, and none of them. Chosen by this rule before anything was measured.
UNKNOWN_CLOTHES = ("hat", "shoes")


# Of 640 clothes 160 calibrate: enough for an alpha of one per cent.
HELD_OUT = 0.25


@config
class DemoConfig:
    """Tell known clothes from unknown ones, handwriting and blood cells, with a promised false-alarm rate."""

    output: Annotated[Path, NotInFingerprint] = Path("mood-demo")
    """folder for the network, the detector and the report"""
    train: bool = False
    """go through every stage in miniature from random weights, in place of the embedded network"""
    score: str = "mood"
    """one of `mood scores`"""
    alpha: Level = 0.05
    """promised false-alarm rate"""
    epochs: Count = 12
    """of fine-tuning on the known clothes"""
    seed: Seed = 0
    """of every draw"""
    device: str = "auto"
    """auto, cpu or cuda"""
    workers: Annotated[Workers, NotInFingerprint] = 1
    """processes that decode images"""
    overwrite: Annotated[bool, NotInFingerprint] = False
    """replace a demo of another configuration"""


@dataclass(frozen=True)
class DemoResult:
    """The figures, and where the page is."""

    evaluation: "Evaluation"
    report: Path

    def summary(self) -> str:
        """The table, the promise and the path of the page."""
        return f"{self.evaluation.summary()}\nreport: {self.report}"


def demo(config: DemoConfig) -> DemoResult:
    """Fine-tune, fit, score and report; started again it reuses what is finished.

    Raises:
        MoodError: the output is taken by something else.
    """
    from mood.core.output import open_output
    from mood.data import held_out, open_source
    from mood.recipes.evaluate import examine, write_evaluation
    from mood.recipes.finetune import FinetuneConfig, finetune
    from mood.recipes.fit import FitConfig, fit
    from mood.recipes.pretrain import PretrainConfig, pretrain

    clothes = open_source("clothing", exclude_classes=UNKNOWN_CLOTHES)
    # Another seed than the cut's: test images are chosen first, and the cut is made among the others.
    is_test = held_out(clothes.manifest.hashes, seed=config.seed + 1, fraction=0.2)
    known, test = clothes.select(~is_test), clothes.select(is_test)
    common: dict[str, Any] = {
        "seed": config.seed,
        "device": config.device,
        "workers": config.workers,
        "overwrite": config.overwrite,
    }
    start = "embedded"
    if config.train:
        pretrained = pretrain(
            PretrainConfig(
                data=("clothing",),
                output=config.output / "pretrained",
                epochs=8,
                batch_size=64,
                base_lr=2e-3,
                held_out=HELD_OUT,
                **common,
            ),
            source=known,
        )
        start = str(pretrained.output)
    tuned = finetune(
        FinetuneConfig(
            data="clothing",
            output=config.output / "network",
            model=start,
            epochs=config.epochs,
            batch_size=32,
            ema=0.99,
            held_out=HELD_OUT,
            **common,
        ),
        source=known,
    )
    fitted = fit(
        FitConfig(
            data="clothing",
            output=config.output / "detector",
            model=str(tuned.output),
            score=config.score,
            alpha=config.alpha,
            held_out=HELD_OUT,
            **common,
        ),
        data=known,
    )
    unknown = {
        "other clothes (near)": open_source("clothing", classes=UNKNOWN_CLOTHES),
        "handwriting (far)": open_source("omniglot"),
        "blood cells (far)": open_source("bccd"),
    }
    cut = held_out(known.manifest.hashes, seed=config.seed, fraction=HELD_OUT)
    settings = to_dict(config) | {"fitted": fitted.detector.fingerprint()}
    with open_output(config.output / "evaluation", settings, overwrite=config.overwrite) as output:
        evaluation = examine(
            fitted.detector,
            test,
            unknown,
            fitted_on=known.select(~cut),
            workers=config.workers,
            settings=to_dict(config),
        )
        if not output.finished:
            write_evaluation(evaluation, output.work)
            output.commit()
    return DemoResult(evaluation, config.output / "evaluation" / "report.html")
