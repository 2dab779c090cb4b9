"""The measured page: CIFAR-10 against six sets, the embedded network as it is and fine-tuned, with both controls.

    python benchmarks/cifar10.py --data-root DIR --work RUNS --page docs/results/YYYY-MM-DD-cifar10.md

Every score is fitted on the training images of CIFAR-10 that the hash cut leaves, and measured on its test images and
on all images of each other set; the held-out images calibrate the promise. One pass a network serves every score.
Nothing is chosen by any of these figures. What was extracted or trained before is not made again.
"""

import argparse
import datetime
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import mood
from mood.core.config import load_toml
from mood.core.errors import MoodError
from mood.core.features import Features
from mood.data import Source, held_out, open_source
from mood.decisions import Conformal, false_alarm_range
from mood.evaluation import evaluate
from mood.models import Embedder, Model, open_model, randomised, six_numbers
from mood.recipes.extract import extract_features
from mood.recipes.finetune import FinetuneConfig, finetune

KNOWN = "cifar10"
NEAR = ("cifar100:test", "tinyimagenet-val")
FAR = ("dtd-subset", "chars74k-subset", "scenes15-subset", "mnist-test")
SEEN = {"cifar100:test": "†"}
ALPHA = 0.05
RECIPE = Path(__file__).parents[1] / "recipes" / "cifar10-finetune.toml"


@dataclass(frozen=True, slots=True)
class Place:
    """Where images and features are found, and how features are made."""

    data_root: str
    device: str = "auto"
    workers: int = 1
    limit: int | None = None

    def opened(self, name: str) -> Source:
        """A set by its name."""
        return open_source(name, roots=[self.data_root], limit=self.limit)

    def features(self, model: Model, source: Source) -> tuple[Features, Any]:
        """Features of a source, from the cache or made now, and the head that they lead to."""
        plain = model.architecture is None
        embedder = Embedder(model, device="cpu" if plain else self.device, precision="fp32" if plain else "auto")
        store = extract_features(source, embedder, batch_size=256, workers=self.workers).store
        return Features.concat(list(store)), embedder.head


@dataclass(frozen=True, slots=True)
class Split:
    """The images of the known world."""

    fit: Source
    calibration: Source
    test: Source

    @classmethod
    def of(cls, place: Place, seed: int) -> "Split":
        """The cut of the training images, and the test images."""
        train = place.opened(f"{KNOWN}:train")
        cut = held_out(train.manifest.hashes, seed=seed)
        return cls(train.select(~cut), train.select(cut), place.opened(f"{KNOWN}:test"))


def six_numbers_against(place: Place, model: Model, split: Split, others: Mapping[str, Source]) -> dict[str, Any]:
    """Metrics of a Mahalanobis distance on channel means and standard deviations, one Gaussian for all classes."""
    control = six_numbers(model.transform)
    fitted_on, _ = place.features(control, split.fit)
    one = Features(fitted_on.embedding, ids=fitted_on.ids, labels=torch.zeros(len(fitted_on), dtype=torch.int64))
    score = mood.scores.fit("mahalanobis", one)
    known = score(place.features(control, split.test)[0])
    return {name: asdict(evaluate(known, score(place.features(control, item)[0]))) for name, item in others.items()}


def network_against(
    place: Place, model: Model, split: Split, others: Mapping[str, Source], *, knows_classes: bool
) -> dict[str, Any]:
    """Metrics of every score on one network's features, by score; in place of those that cannot be had, the reason."""
    fitted_on, head = place.features(model, split.fit)
    known, calibration = place.features(model, split.test)[0], place.features(model, split.calibration)[0]
    unknown = {name: place.features(model, item)[0] for name, item in others.items()}
    found: dict[str, Any] = {}
    for name, about in mood.scores.available().items():
        if not knows_classes and {"logits", "head"} & set(about.needs):
            found[name] = {"reason": "its head knows other classes"}
            continue
        try:
            score = mood.scores.fit(name, fitted_on, head=head)
            on_known = score(known)
        except MoodError as error:
            found[name] = {"reason": str(error)}
            continue
        if isinstance(score, mood.scores.Moving) and score.epsilon > 0:
            found[name] = {"reason": "it moves the images themselves, and these are stored features"}
            continue
        promise = Conformal(score(calibration))
        low, high = false_alarm_range(ALPHA, len(promise), len(known), confidence=0.99)
        found[name] = {
            "sets": {item: asdict(evaluate(on_known, score(rows))) for item, rows in unknown.items()},
            "false_alarms": float((promise.p_values(on_known) <= ALPHA).mean()),
            "allowed": [low, high],
        }
    return found


def networks(place: Place, work: Path, seed: int, epochs: int | None) -> dict[str, tuple[Model, bool]]:
    """The networks of the page, and whether their head knows the classes of CIFAR-10."""
    as_it_is = open_model("embedded")
    overrides = {
        "output": work / "finetuned",
        "data_root": (place.data_root,),
        "device": place.device,
        "workers": place.workers,
        "limit": place.limit,
        "seed": seed,
    }
    if place.limit is not None:
        overrides |= {"epochs": 1, "batch_size": 32, "warmup_epochs": 0.0}
    if epochs is not None:
        overrides["epochs"] = epochs
    tuned = finetune(load_toml(RECIPE, FinetuneConfig, overrides))
    return {
        "fine-tuned": (open_model(str(tuned.output)), True),
        "as it is": (as_it_is, False),
        "random weights": (randomised(as_it_is, seed), False),
    }


def percent(estimate: Mapping[str, float]) -> str:
    """A share with its interval, in percent."""
    value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
    return f"{value:.1f} <small>{low:.1f}–{high:.1f}</small>"


def table(results: Mapping[str, Any], metric: str) -> list[str]:
    """One row a network and score, one column a set."""
    sets = (*NEAR, *FAR)
    lines = [f"| network | score | {' | '.join(name + SEEN.get(name, '') for name in sets)} |"]
    lines.append(f"|---|---|{'---:|' * len(sets)}")
    six = results["six numbers"]
    lines.append(f"| *six numbers* | | {' | '.join(percent(six[name][metric]) for name in sets)} |")
    for network, scores in results["networks"].items():
        for score, figures in scores.items():
            if "sets" in figures:
                cells = " | ".join(percent(figures["sets"][name][metric]) for name in sets)
                lines.append(f"| {network} | `{score}` | {cells} |")
    return lines


def verdicts(results: Mapping[str, Any], score: str = "mood") -> list[str]:
    """A sentence for each set: what the paper's score reaches on both networks, and which controls are not beaten."""
    six, found = results["six numbers"], results["networks"]
    sentences = []
    for name in (*NEAR, *FAR):
        reached = {n: 100 * found[n][score]["sets"][name]["auroc"]["value"] for n in ("fine-tuned", "as it is")}
        controls = {
            "six numbers": 100 * six[name]["auroc"]["value"],
            "random weights": 100 * found["random weights"][score]["sets"][name]["auroc"]["value"],
        }
        beaten = [
            f"the network {network} does **not** beat {control}"
            for network, value in reached.items()
            for control, other in controls.items()
            if other >= value
        ]
        values = [f"{title} {value:.1f}" for title, value in {**reached, **controls}.items()]
        sentences.append(f"* {name}{SEEN.get(name, '')}: {'; '.join([', '.join(values), *beaten])}.")
    return sentences


def page(results: Mapping[str, Any], command: str) -> str:
    """The results page as Markdown."""
    found = results["networks"]
    day = datetime.date.fromisoformat(results["date"])
    missing = {
        f"`{score}`: {figures['reason']}"
        for network in ("fine-tuned",)
        for score, figures in found[network].items()
        if "reason" in figures
    }
    alarms = [
        f"| {network} | `{score}` | {figures['false_alarms']:.2%} | "
        f"{figures['allowed'][0]:.2%}–{figures['allowed'][1]:.2%} | "
        f"{'inside' if figures['allowed'][0] <= figures['false_alarms'] <= figures['allowed'][1] else '**outside**'} |"
        for network, scores in found.items()
        for score, figures in scores.items()
        if "sets" in figures
    ]
    lines = [
        f"# CIFAR-10 against six sets, {day.day} {day:%B %Y}",
        "",
        "## In one sentence",
        "",
        "AUROC of the paper's score (`mood`) on two networks, beside two controls that have learned nothing:",
        "",
        *verdicts(results),
        "",
        "## How it was measured",
        "",
        f"* **Command**: `{command}`",
        f"* **Data**: known is CIFAR-10: scores fitted on {results['images']['fit']:,} training images, calibrated on "
        f"{results['images']['calibration']:,} held out by their hash, measured on {results['images']['test']:,} test "
        "images, JPEG quality 95. Unknown: "
        + ", ".join(f"{name}{SEEN.get(name, '')} ({results['images'][name]:,})" for name in (*NEAR, *FAR))
        + ". † the network has learned training images of these classes. CIFAR-100 and Tiny ImageNet share kinds of "
        "animals and vehicles with CIFAR-10. All are resized to 32 pixels by the network's own transform.",
        f"* **Network**: the embedded one (`{results['fingerprint'][:12]}`; its card is in `src/mood/models/embedded`) "
        f"as it is, and fine-tuned with `recipes/cifar10-finetune.toml` (accuracy {results['accuracy']:.1%} on "
        "`cifar10:test`).",
        f"* **Hardware and versions**: {results['hardware']}.",
        f"* **Seeds**: {results['seed']} of the cut, the fine-tuning, the random weights and the bootstrap: one each.",
        "",
        "## AUROC",
        "",
        "In percent, with 95 % bootstrap intervals over the test images.",
        "",
        *table(results, "auroc"),
        "",
        "## FPR at 95 % of the known images kept",
        "",
        *table(results, "fpr95_id_positive"),
        "",
        "FPR95 with the unknown as positives, and AUPR of both sides, are in the JSON file beside this page.",
        "",
        "## False alarms",
        "",
        f"Share of the unseen test images with p ≤ {ALPHA}, and where it lies in 99 of 100 draws if the promise holds.",
        "",
        "| network | score | false alarms | 99 % range | |",
        "|---|---|---:|---:|---|",
        *alarms,
        "",
        "## What it does not show",
        "",
        "One seed of each training; a network of a few million weights on 32 pixels, not the paper's. Scores that read "
        "logits are left out where the head knows other classes than CIFAR-10's.",
        *(f"\n* {reason}" for reason in sorted(missing)),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of the fine-tuned network")
    parser.add_argument("--page", type=Path, help="Markdown file; the figures go beside it as JSON")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--limit", type=int, help="images of each set: a try")
    parser.add_argument("--epochs", type=int, help="of the fine-tuning, in place of the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    place = Place(given.data_root, given.device, given.workers, given.limit)
    split = Split.of(place, given.seed)
    others = {name: place.opened(name) for name in (*NEAR, *FAR)}
    used = networks(place, given.work, given.seed, given.epochs)
    tuned, as_it_is = used["fine-tuned"][0], used["as it is"][0]
    logits = place.features(tuned, split.test)[0]
    assert logits.logits is not None
    assert logits.labels is not None
    results = {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "seed": given.seed,
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} threads, mood {mood.__version__}, "
        f"torch {torch.__version__}",
        "fingerprint": as_it_is.fingerprint(),
        "accuracy": float((logits.logits.argmax(1) == logits.labels).double().mean()),
        "images": {
            "fit": len(split.fit),
            "calibration": len(split.calibration),
            "test": len(split.test),
            **{name: len(item) for name, item in others.items()},
        },
        "six numbers": six_numbers_against(place, as_it_is, split, others),
        "networks": {
            name: network_against(place, model, split, others, knows_classes=knows)
            for name, (model, knows) in used.items()
        },
    }
    epochs = "" if given.epochs is None else f" --epochs {given.epochs}"
    limit = "" if given.limit is None else f" --limit {given.limit}"
    text = page(results, f"python benchmarks/cifar10.py --data-root DIR --work RUNS --page PAGE{epochs}{limit}")
    if given.page is not None:
        given.page.write_text(text, encoding="utf-8")
        given.page.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print("\n".join(verdicts(results)))


if __name__ == "__main__":
    main()
