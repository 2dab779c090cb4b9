"""Is the promise kept? Realised rates over many random splits of real features, for every kind of calibration.

    python benchmarks/promise.py --data-root DIR --work RUNS

The known images are CIFAR-10: the embedded network as it is, and the same fine-tuned for a few epochs on training
images that the hash cut leaves. Scores are fitted on these; the 10 000 test images, which nothing has seen, are then
split at random into n that calibrate and the others, on which false alarms are counted, again and again. Unknown images
(DTD, Tiny ImageNet) enter where batches are mixed and where power is shown; nothing is chosen by any of these figures.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mood
from mood.core.errors import PromiseError
from mood.core.features import Features
from mood.data import open_source
from mood.decisions import Conditional, Conformal, Cross, Mondrian, deal, discoveries, false_alarm_range, proven_rate
from mood.decisions.conformal import flagged_ranks
from mood.models import Embedder, Model, open_model
from mood.recipes.extract import extract_features
from mood.recipes.finetune import FinetuneConfig, finetune
from mood.recipes.fit import FitConfig, fit

CALIBRATION = (50, 200, 1000)
ALPHAS = (0.01, 0.05, 0.1)
CONFIDENCE = 0.9
BOUNDS = ("simes", "dkwm", "monte-carlo")
UNKNOWN = ("dtd-subset", "tinyimagenet-val")
EVERY = (
    *UNKNOWN,
    "cifar100:test",
    "imagenet1k-sample",
    "caltech101-subset",
    "scenes15-subset",
    "flowers5-subset",
    "clothing-subset",
    "chars74k-subset",
    "bccd",
    "mnist-test",
    "kmnist-subset",
    "emnist-letters-subset",
    "omniglot-small",
)
"""All sets at hand, where power is compared."""
SHARES = (0.01, 0.1, 0.5)
SMALL = 200
"""Images in all where cross-conformal is held beside two halves …"""
FEW: dict[str, tuple[str, dict[str, Any]]] = {
    "mood": ("mood", {}),
    "mood, shrinkage=oas": ("mood", {"shrinkage": "oas"}),
    "knn, k=5": ("knn", {"k": 5}),
}
"""… by these scores."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where images and features are found."""

    data_root: str
    work: Path
    device: str
    workers: int

    def features(self, model: Model, name: str, limit: int | None = None) -> Features:
        """From the cache, or made now."""
        source = open_source(name, roots=[self.data_root], limit=limit)
        embedder = Embedder(model, device=self.device)
        return Features.concat(list(extract_features(source, embedder, batch_size=256, workers=self.workers).store))


@dataclass(frozen=True, slots=True)
class Known:
    """A score of one network on known images that nothing has seen, and on unknown ones."""

    name: str
    scores: np.ndarray
    classes: np.ndarray
    unknown: dict[str, np.ndarray]


def splits(count: int, n: int, times: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(n,) and (count − n,) positions, at random."""
    for split in range(times):
        order = np.random.default_rng([seed, n, split]).permutation(count)
        yield order[:n], order[n:]


def percent(values: Sequence[float] | np.ndarray) -> str:
    """Mean and its standard error over splits."""
    found = np.asarray(values)
    return f"{100 * found.mean():.2f} ± {100 * found.std() / np.sqrt(len(found)):.2f}"


def together(known: Sequence[Known], times: int, seed: int) -> None:
    """Marginal and conditional promises over all classes."""
    print("\n## Over all classes\n")
    print(
        "| score | n | α % | expected % | marginal, realised % | " + " | ".join(f"{b}, kept in" for b in BOUNDS) + " |"
    )
    print("|---|---:|---:|---:|---:|" + "---:|" * len(BOUNDS))
    for item in known:
        for n in (n for n in CALIBRATION if n < len(item.scores)):
            rates: dict[float, list[float]] = {alpha: [] for alpha in ALPHAS}
            kept: dict[tuple[float, str], list[bool]] = {}
            for inside, outside in splits(len(item.scores), n, times, seed):
                p = Conformal(item.scores[inside]).p_values(item.scores[outside])
                for alpha in ALPHAS:
                    rates[alpha].append(float((p <= alpha).mean()))
                for bound in BOUNDS:
                    made = Conditional(item.scores[inside], confidence=CONFIDENCE, bound=bound)
                    p = made.p_values(item.scores[outside])
                    for alpha in ALPHAS:
                        if made.flagged_ranks(alpha):
                            kept.setdefault((alpha, bound), []).append(float((p <= alpha).mean()) <= alpha)
            for alpha in ALPHAS:
                k = flagged_ranks(alpha, n)
                realised = percent(rates[alpha]) if k else "refused"
                cells = [
                    f"{100 * np.mean(kept[alpha, bound]):.1f} %" if (alpha, bound) in kept else "refused"
                    for bound in BOUNDS
                ]
                expected = f"{100 * k / (n + 1):.2f}"
                print(
                    f"| {item.name} | {n} | {100 * alpha:g} | {expected} | {realised} | {' | '.join(cells)} |",
                    flush=True,
                )


def by_class(known: Sequence[Known], times: int, seed: int) -> None:
    """Mondrian: classes that keep alpha alone, and the others together."""
    print("\n## By predicted class\n")
    print("| score | n | α % | classes alone | their mean rates, lowest and highest % | the others together % |")
    print("|---|---:|---:|---:|---:|---:|")
    for item in known:
        for n in (n for n in CALIBRATION if n < len(item.scores)):
            for alpha in (alpha for alpha in ALPHAS if flagged_ranks(alpha, n)):
                alone: dict[int, list[float]] = {}
                others, counts = [], []
                for inside, outside in splits(len(item.scores), n, times, seed):
                    made = Mondrian(item.scores[inside], item.classes[inside], alpha=alpha)
                    classes = item.classes[outside]
                    flagged = made.p_values(item.scores[outside], classes=classes) <= alpha
                    for label in made.alone:
                        if (rows := classes == label).any():
                            alone.setdefault(label, []).append(float(flagged[rows].mean()))
                    if (rows := ~np.isin(classes, made.alone)).any():
                        others.append(float(flagged[rows].mean()))
                    counts.append(len(made.alone))
                # A class that is nearly never alone has nearly no rate.
                often = [values for values in alone.values() if len(values) >= times / 10]
                means = sorted(often, key=np.mean)
                low, high = (percent(means[0]), percent(means[-1])) if means else ("–", "–")
                pooled = percent(others) if len(others) >= times / 10 else "–"
                cells = f"{np.mean(counts):.1f} | {low} to {high} | {pooled}"
                print(f"| {item.name} | {n} | {100 * alpha:g} | {cells} |", flush=True)


def batches(item: Known, times: int, seed: int, level: float = 0.1) -> None:
    """False-discovery rates of mixed batches."""
    size = min(1000, len(item.scores) // 4)
    print(f"\n## False discoveries in batches of {size}, at most {100 * level:g} % promised ({item.name})\n")
    print("| unknown | n | share % | BH: false discoveries % | found % | Storey: false discoveries % | found % |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, strange in item.unknown.items():
        for n in (n for n in (1000, 5000) if n + size <= len(item.scores)):
            for share in SHARES:
                count = min(round(share * size), len(strange))
                wrong: dict[str, list[float]] = {"bh": [], "storey": []}
                found: dict[str, list[float]] = {"bh": [], "storey": []}
                for split, (inside, outside) in enumerate(splits(len(item.scores), n, times, seed)):
                    draws = np.random.default_rng([seed, split]).permutation(len(strange))[:count]
                    batch = np.concatenate([item.scores[outside[: size - count]], strange[draws]])
                    p = Conformal(item.scores[inside]).p_values(batch)
                    for method in wrong:
                        flagged = discoveries(p, level, method=method)
                        wrong[method].append(float(flagged[: size - count].sum() / max(1, flagged.sum())))
                        found[method].append(float(flagged[size - count :].mean()))
                cells = [f"{percent(wrong[method])} | {100 * np.mean(found[method]):.1f}" for method in wrong]
                print(f"| {name} | {n} | {100 * share:g} | {' | '.join(cells)} |", flush=True)


def pipeline(place: Place, network: Path, images: int, test: Features, seed: int) -> None:
    """Fine-tune, fit and calibrate by the recipes; and what comes of it where fine-tuning saw those that calibrate."""
    print("\n## The whole pipeline, α = 5 %\n")
    print("| score | calibrated on | n | false alarms on test images % | by chance %, 99 of 100 |")
    print("|---|---|---:|---:|---:|")
    model = open_model(str(network))
    seen = place.features(model, "cifar10:train", images)
    source = open_source("cifar10:train", roots=[place.data_root], limit=images)
    trained_on = model.seen_among(source.manifest.hashes)
    for score in ("msp", "mood"):
        settings = {
            "model": str(network),
            "score": score,
            "limit": images,
            "data_root": (place.data_root,),
            "seed": seed,
        }
        try:
            detector = fit(
                FitConfig(data="cifar10:train", batch_size=256, device=place.device, workers=place.workers, **settings)
            ).detector
        except PromiseError:
            print(f"| {score} | images that nothing saw | too few | refused | – |", flush=True)
            continue
        on_test = detector.score(test).numpy()
        tuned = detector.score(seen[trained_on]).numpy()
        tuned = tuned[np.random.default_rng(seed).permutation(len(tuned))[: len(detector.calibration)]]
        for what, made in (("images that nothing saw", detector.calibration), ("fine-tuning images", Conformal(tuned))):
            rate = float((made.p_values(on_test) <= 0.05).mean())
            low, high = false_alarm_range(0.05, len(made), len(on_test))
            print(
                f"| {score} | {what} | {len(made)} | {100 * rate:.1f} | {100 * low:.1f}–{100 * high:.1f} |", flush=True
            )


def small(known: Features, unknown: dict[str, Features], times: int, seed: int, folds: int = 10) -> None:
    """All images in folds, against one half to fit and one to calibrate."""
    total = min(SMALL, len(known) // 2)
    print(f"\n## {total} known images in all: {folds} folds against two halves\n")
    print("Found %, where exactly alpha of the known images are flagged over all draws.\n")
    print("| score | α % | way | proven % | realised % | mean of all sets | " + " | ".join(unknown) + " |")
    print("|---|---:|---|---:|---:|---:|" + "---:|" * len(unknown))
    for title, (score, options) in FEW.items():
        ways: dict[str, dict[str, list[np.ndarray]]] = {way: {} for way in ("folds", "halves")}
        for draw in range(times):
            order = np.random.default_rng([seed, draw]).permutation(len(known))
            ours, others = known[order[:total].copy()], known[order[total : total + 1000].copy()]
            dealt = deal(total, folds)
            parts = [ours[dealt == fold] for fold in range(folds)]
            _, without = mood.scores.fit_folds(score, parts, **options)
            held = np.concatenate([fit(part).numpy() for fit, part in zip(without, parts, strict=True)])
            half = mood.scores.fit(score, ours[: total // 2], **options)
            cross, split = Cross(held, dealt), Conformal(half(ours[total // 2 :]))
            for name, rows in {"": others, **unknown}.items():
                table = np.stack([fit(rows).numpy() for fit in without], axis=1)
                ways["folds"].setdefault(name, []).append(cross.p_values(table))
                ways["halves"].setdefault(name, []).append(split.p_values(half(rows)))
        for alpha in (0.05, 0.1):
            for way, found in ways.items():
                count = total if way == "folds" else total - total // 2
                proven = proven_rate(alpha, total, folds) if way == "folds" else alpha
                realised = [float((p <= alpha).mean()) for p in found[""]]
                together = {name: np.concatenate(p) for name, p in found.items()}
                shares = [100 * at_rate(together[""], p, alpha) for name, p in together.items() if name]
                cells = [f"{share:.1f}" for share in (np.mean(shares), *shares)]
                row = f"{100 * alpha:g} | {way}, n = {count} | {100 * proven:.1f} | {percent(realised)}"
                print(f"| {title} | {row} | {' | '.join(cells)} |", flush=True)


def at_rate(known: np.ndarray, unknown: np.ndarray, alpha: float) -> float:
    """The share of unknown images flagged where exactly alpha of known ones are, by a coin between two p-values."""
    level = np.quantile(known, alpha)
    below, up_to = float((known < level).mean()), float((known <= level).mean())
    coin = (alpha - below) / max(up_to - below, 1e-12)
    return float((unknown < level).mean() + coin * (unknown == level).mean())


def several(parts: Sequence[Known], combined: dict[str, np.ndarray], times: int, seed: int) -> None:
    """One number calibrated once, against a threshold for each score."""
    n = min(1000, len(parts[0].scores) // 2)
    print(f"\n## Two scores as one, n = {n}, realised %\n")
    print("| way | α = 1 % | α = 5 % | α = 10 % |")
    print("|---|---:|---:|---:|")

    def row(name: str, flagged: Callable[[np.ndarray, np.ndarray, float], np.ndarray]) -> None:
        rates: dict[float, list[float]] = {alpha: [] for alpha in ALPHAS}
        for inside, outside in splits(len(parts[0].scores), n, times, seed):
            for alpha in ALPHAS:
                rates[alpha].append(float(flagged(inside, outside, alpha).mean()))
        print(f"| {name} | {' | '.join(percent(values) for values in rates.values())} |", flush=True)

    for rule, scores in combined.items():
        row(rule, lambda inside, outside, alpha, s=scores: Conformal(s[inside]).p_values(s[outside]) <= alpha)  # type: ignore[misc]
    row(
        "either of two thresholds",
        lambda inside, outside, alpha: np.any(
            [Conformal(part.scores[inside]).p_values(part.scores[outside]) <= alpha for part in parts], axis=0
        ),
    )


def speed() -> None:
    """A million scores."""
    draws = np.random.default_rng(0)
    scores, held, classes = draws.normal(size=1_000_000), draws.normal(size=1000), draws.integers(0, 10, 1_000_000)
    ids = [str(row) for row in range(len(scores))]
    ways: dict[str, Callable[[], np.ndarray]] = {
        "split": lambda: Conformal(held).p_values(scores),
        "conditional (simes)": lambda: Conditional(held).p_values(scores),
        "by class": lambda: Mondrian(held, classes[:1000], alpha=0.05).p_values(scores, classes=classes),
        "cross, 10 folds": lambda: Cross(held, deal(1000, 10)).p_values(np.tile(scores[:, None], (1, 10))),
        "split, all tied, randomised": lambda: Conformal(np.zeros(1000), ties="randomised").p_values(
            0 * scores, ids=ids
        ),
        "Benjamini and Hochberg on them": lambda: discoveries((1 + np.arange(1_000_000)) / 1_000_001, 0.1),
    }
    print("\n## p-values of a million scores\n\n| way | seconds |\n|---|---:|")
    for name, way in ways.items():
        start = time.perf_counter()
        way()
        print(f"| {name} | {time.perf_counter() - start:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the fine-tuned network")
    parser.add_argument("--train", type=int, default=6000, help="training images that scores are fitted on")
    parser.add_argument("--tune", type=int, default=2000, help="training images for fine-tuning")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=40, help="of the few images for cross-conformal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    place = Place(given.data_root, given.work, given.device, given.workers)
    tuned = finetune(
        FinetuneConfig(
            data="cifar10:train",
            output=given.work / "network",
            epochs=given.epochs,
            batch_size=64,
            lr=5e-4,
            layer_decay=0.85,
            drop_path=0.0,
            ema=0.99,
            limit=given.tune,
            seed=given.seed,
            device=given.device,
            workers=given.workers,
            data_root=(given.data_root,),
        )
    ).output
    networks = {"embedded": open_model("embedded"), "fine-tuned": open_model(str(tuned))}
    known, features, combined = [], {}, {}
    for name, model in networks.items():
        fitted_on = place.features(model, "cifar10:train", given.train if name == "embedded" else given.tune)
        test = place.features(model, "cifar10:test")
        unknown = {other: place.features(model, other, 2000) for other in UNKNOWN}
        features[name] = (test, unknown)
        classes = test.need("logits").argmax(1).numpy()
        head = Embedder(model, device=given.device).head
        for score in ("mood",) if name == "embedded" else ("mood", "msp"):
            ready = mood.scores.fit(score, fitted_on, head=head)
            strange = {other: ready(rows).numpy() for other, rows in unknown.items()}
            known.append(Known(f"{score}, {name}", ready(test).numpy(), classes, strange))
        if name == "fine-tuned":
            for rule in ("mean", "max", "fisher"):
                ready = mood.scores.fit("mood,msp", fitted_on, head=head, combine=rule)
                combined[f"mood,msp by {rule}"] = ready(test).numpy()
    together(known, given.splits, given.seed)
    by_class(known[1:], given.splits, given.seed)
    batches(known[0], given.splits, given.seed)
    pipeline(place, tuned, given.tune, features["fine-tuned"][0], given.seed)
    everywhere = {other: place.features(networks["embedded"], other, 600) for other in EVERY}
    small(features["embedded"][0], everywhere, given.draws, given.seed)
    several(known[1:], combined, given.splits, given.seed)
    speed()


if __name__ == "__main__":
    main()
