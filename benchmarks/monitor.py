"""The monitor: how often streams of known images alarm, and how soon a stream that turns 10 % strange does.

    python benchmarks/monitor.py --data-root DIR --page docs/results/YYYY-MM-DD-monitor.md

Scores are fitted on the training images of CIFAR-10 that the hash cut leaves. All others (the held-out ones and the
test images) were seen by no stage; a stream is a random order of them: the first n calibrate, the next ones are
watched. So streams of known images are exchangeable by construction. From image 1000 on, a stream of the second table
holds a strange image in each place with a chance of 10 %. Bets and rates were set on normal random numbers, and nothing
is chosen by any of these figures.
"""

import argparse
import datetime
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.stats
import torch
from PIL import Image, ImageFilter

import mood
from mood.core.decoding import as_seen
from mood.core.features import Features
from mood.core.transform import Transform
from mood.data import Source, held_out, open_source
from mood.decisions import Conformal, Jumper, OnlineReference, linear_bets, power_bets
from mood.evaluation import auroc
from mood.models import Embedder, open_model
from mood.recipes.extract import extract_features

LEVEL = 0.01
CALIBRATION = (200, 1000, 5000)
SCORES = ("mood", "mahalanobis_per_class", "ocsvm")
SETS = ("dtd-subset", "tinyimagenet-val", "chars74k-subset")
BLURS = (1, 2)
SHARE = 0.1
TOGETHER = 100


@dataclass(frozen=True, slots=True)
class Sizes:
    """How long streams are, how many there are, and when some of them turn and for how long."""

    length: int
    streams: int
    turning: int
    change: int
    after: int
    calibration: tuple[int, ...]


def blurred(source: Source, radius: int, count: int) -> list[np.ndarray]:
    """The first images of a source under a Gaussian blur."""
    whole = Transform(size=(32, 32), resize=32)
    pictures = (Image.fromarray(whole.pixels(as_seen(source.read(row)))) for row in range(min(count, len(source))))
    return [np.asarray(picture.filter(ImageFilter.GaussianBlur(radius))) for picture in pictures]


def features(embedder: Embedder, source: Source, workers: int) -> Features:
    """Features from the cache, or made now."""
    return Features.concat(list(extract_features(source, embedder, batch_size=256, workers=workers).store))


def capital(p_values: np.ndarray) -> np.ndarray:
    """(S, N) p-values of S streams → the log of the capital that `Monitor` has after each."""
    logs = [Jumper.start(bets, streams=p_values.shape[:1]).play(p_values) for bets in (power_bets, linear_bets)]
    return np.logaddexp(*logs) - np.log(2)


def online(calibration: np.ndarray, stream: np.ndarray, seed: int) -> np.ndarray:
    """Each score against those before it."""
    return OnlineReference.start(calibration, seed=seed).judge(stream)


def fixed(calibration: np.ndarray, stream: np.ndarray, seed: int) -> np.ndarray:
    """Each score against the calibration scores alone, ties broken by chance, as online."""
    conformal = Conformal(calibration)
    n = len(calibration)
    higher = (n + 1) * conformal.p_values(stream) - 1
    return np.asarray((higher + np.random.default_rng(seed).random(len(stream))) / (n + 1))


def first_alarms(
    made: Callable[[int], tuple[np.ndarray, np.ndarray]],
    judge: Callable[[np.ndarray, np.ndarray, int], np.ndarray],
    streams: int,
) -> np.ndarray:
    """(S,) position of the alarm of each stream, infinite where there is none."""
    found = []
    for start in range(0, streams, TOGETHER):
        seeds = range(start, min(streams, start + TOGETHER))
        over = capital(np.stack([judge(*made(seed), seed) for seed in seeds])) >= -np.log(LEVEL)
        found.append(np.where(over.any(1), over.argmax(1), np.inf))
    return np.concatenate(found)


def known_stream(pool: np.ndarray, n: int, length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Calibration scores and a stream, in a random order of one pool."""
    order = np.random.default_rng([seed, n]).permutation(pool)
    return order[:n], order[n : n + length]


def turning_stream(
    pool: np.ndarray, strange: np.ndarray, n: int, sizes: Sizes, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """A stream in which one image in ten is strange from `change` on."""
    calibration, stream = known_stream(pool, n, sizes.change + sizes.after, seed)
    random = np.random.default_rng([seed, n, 1])
    replaced = np.flatnonzero(random.random(len(stream)) < SHARE)
    replaced = replaced[replaced >= sizes.change]
    drawn = random.choice(strange, len(replaced), replace=len(replaced) > len(strange))
    stream[replaced] = drawn
    return calibration, stream


def alarms_table(pool: np.ndarray, sizes: Sizes) -> list[str]:
    """How often streams of known images alarm."""
    lines = ["| p-values | calibration images | streams that alarm | 95 % interval |", "|---|---:|---:|---:|"]
    for name, judge in (("online", online), ("against a fixed calibration set", fixed)):
        streams = sizes.streams if judge is online else min(sizes.streams, 200)
        for n in sizes.calibration:
            alarms = np.isfinite(
                first_alarms(lambda seed, n=n: known_stream(pool, n, sizes.length, seed), judge, streams)
            )
            interval = scipy.stats.binomtest(int(alarms.sum()), streams).proportion_ci()
            lines.append(
                f"| {name} | {n} | {alarms.mean():.2%} ({alarms.sum()} of {streams}) | {interval.low:.2%}–"
                f"{interval.high:.2%} |"
            )
            print(lines[-1], flush=True)
    return lines


def delays_table(
    known: Mapping[str, np.ndarray], strange: Mapping[str, Mapping[str, np.ndarray]], sizes: Sizes
) -> list[str]:
    """How soon streams alarm that turn strange."""
    n = sizes.calibration[min(1, len(sizes.calibration) - 1)]
    lines = [
        "| score | turns 10 % | AUROC | median delay | quartiles | caught | alarm before |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for score, pool in known.items():
        for name, scores in strange[score].items():
            found = first_alarms(
                lambda seed, pool=pool, scores=scores: turning_stream(pool, scores, n, sizes, seed),
                online,
                sizes.turning,
            )
            delays = found[found >= sizes.change] - sizes.change + 1
            quartiles = np.quantile(delays, (0.25, 0.5, 0.75), method="higher") if len(delays) else [np.inf] * 3
            low, median, high = (f"{value:.0f}" if np.isfinite(value) else "–" for value in quartiles)
            lines.append(
                f"| `{score}` | {name} | {100 * auroc(pool, scores):.1f} | {median} | {low}–{high} | "
                f"{np.isfinite(delays).mean():.0%} | {(found < sizes.change).mean():.1%} |"
            )
            print(lines[-1], flush=True)
    return lines


def picture(path: Path, pool: np.ndarray, strange: np.ndarray, sizes: Sizes, named: str) -> None:
    """What two streams look like: known images, and one that turns."""
    from matplotlib.figure import Figure

    n = sizes.calibration[min(1, len(sizes.calibration) - 1)]
    figure = Figure((7.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    rows = {
        "known images, online": (online(*known_stream(pool, n, sizes.length, 0), 0), "#0072b2"),
        f"one in ten is {named} from image {sizes.change} on": (
            online(*turning_stream(pool, strange, n, sizes, 0), 0),
            "#d55e00",
        ),
    }
    for label, (p_values, colour) in rows.items():
        logs = capital(p_values[None])[0] / np.log(10)
        kept = np.arange(0, len(logs), max(1, len(logs) // 400))
        axes.plot(kept, logs[kept], color=colour, linewidth=1.5, label=label)
    axes.axhline(-np.log10(LEVEL), color="#101010", linewidth=1, linestyle=(0, (1.5, 1.5)))
    axes.annotate(f"alarm at 1/{LEVEL:g}", (0, -np.log10(LEVEL)), xytext=(4, 3), textcoords="offset points", fontsize=9)
    axes.set_ylim(-4, 8)
    axes.set_xlim(0, min(sizes.length, 3 * sizes.change))
    axes.set_xlabel("images of the stream")
    axes.set_ylabel("evidence, power of ten")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--page", type=Path, help="Markdown file for the tables")
    parser.add_argument("--picture", type=Path, help="SVG or PNG of two streams")
    parser.add_argument("--model", default="embedded", help="a network that knows no class of the sets by its head")
    parser.add_argument("--length", type=int, default=10_000, help="images of a stream")
    parser.add_argument(
        "--streams", type=int, default=400, help="of known images, at each number of calibration images"
    )
    parser.add_argument("--turning", type=int, default=100, help="streams that turn, for each score and set")
    parser.add_argument("--limit", type=int, help="images of each set: a try")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the cut")
    given = parser.parse_args()
    embedder = Embedder(open_model(given.model), device=given.device)

    def opened(name: str) -> Source:
        return open_source(name, roots=[given.data_root], limit=given.limit)

    train, test = opened("cifar10:train"), opened("cifar10:test")
    cut = held_out(train.manifest.hashes, seed=given.seed)
    fitted_on = features(embedder, train.select(~cut), given.workers)
    unseen = Features.concat([features(embedder, item, given.workers) for item in (train.select(cut), test)])
    strange = {name: features(embedder, opened(name), given.workers) for name in SETS}
    for radius in BLURS:
        pictures = open_source(blurred(test, radius, 2000))
        strange[f"blurred by {radius}"] = features(embedder, pictures, given.workers)
    known, unknown = {}, {}
    for name in SCORES:
        score = mood.scores.fit(name, fitted_on)
        known[name] = score(unseen).numpy()
        unknown[name] = {title: score(rows).numpy() for title, rows in strange.items()}
    longest = len(unseen)
    calibration = tuple(n for n in CALIBRATION if n < longest) or (longest // 2,)
    sizes = Sizes(
        min(given.length, longest - max(calibration)),
        given.streams,
        given.turning,
        min(1000, given.length // 5, longest // 10),
        min(4000, given.length // 2, longest // 4),
        calibration,
    )
    first = alarms_table(known["mood"], sizes)
    second = delays_table(known, unknown, sizes)
    if given.picture:
        picture(given.picture, known["mood"], unknown["mood"]["dtd-subset"], sizes, "a texture")
    if given.page:
        today = datetime.datetime.now(tz=datetime.UTC).date()
        lines = [
            f"# The monitor on CIFAR-10, {today.day} {today:%B %Y}",
            "",
            f"Level {LEVEL:.0%}, {sizes.length:,} images a stream, {len(unseen):,} unseen images of CIFAR-10 in the "
            f"pool, fitted on {len(fitted_on):,}; {given.model}, {embedder.precision}, {platform.machine()}, "
            f"{torch.get_num_threads()} threads, mood {mood.__version__}, torch {torch.__version__}; streams have the "
            "seeds 0, 1, …",
            "",
            *first,
            "",
            *second,
            "",
        ]
        given.page.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
