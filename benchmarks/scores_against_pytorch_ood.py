"""How much faster two scores are than in pytorch-ood 0.4.0, on the same numbers, and whether they agree.

```
python benchmarks/scores_against_pytorch_ood.py              # the peer in full: several minutes
python benchmarks/scores_against_pytorch_ood.py --scale 0.1  # the peer on a tenth of the queries, its time × 10
```

* Mahalanobis: 10 000 × 768 queries against 1000 classes.
* GradNorm: 2000 × 768 queries, a head of 1000 classes.

Both run in one process, by turns, on the same threads; each ratio is of the medians. The peer's Mahalanobis leaves out
the 1/N of its covariance and halves the squared distance, so it is multiplied by 2·N before the values are compared.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from pytorch_ood.detector import GradNorm
from pytorch_ood.detector import Mahalanobis as PeerMahalanobis
from torch import Tensor

import mood.scores
from mood.core.features import Features

WIDTH, FIT_ROWS = 768, 20_000
REPEATS = 5
"""Calls of ours for each of the peer's, which last hundreds of times as long: one may meet a busy moment."""


def timed(function: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Seconds of one call, and what it returned."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def compare(name: str, ours: Callable[[], Tensor], peer: Callable[[], Tensor], scale: float, turns: int) -> None:
    """Prints the ratio of the medians and the largest relative difference of the values."""
    ours()
    our_times, peer_times = [], []
    for _ in range(turns):
        for _ in range(REPEATS):
            seconds, found = timed(ours)
            our_times.append(seconds)
        seconds, expected = timed(peer)
        peer_times.append(seconds / scale)
    our_time, peer_time = statistics.median(our_times), statistics.median(peer_times)
    part = found[: len(expected)]
    difference = float(((part - expected.double()).abs() / part.abs()).max())
    print(
        f"{name}: mood {our_time:.3f} s, pytorch-ood {peer_time:.1f} s, ratio {peer_time / our_time:.0f}; "
        f"largest relative difference {difference:.1e}"
    )


def mahalanobis(classes: int, scale: float, turns: int) -> None:
    """10 000 queries against the classes."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, WIDTH, generator=generator)
    labels = torch.arange(FIT_ROWS) % classes
    fit_rows = centres[labels] + torch.randn(FIT_ROWS, WIDTH, generator=generator)
    queries = torch.randn(10_000, WIDTH, generator=generator) * 1.5
    score = mood.scores.fit("mahalanobis", Features(fit_rows, labels=labels))
    peer = PeerMahalanobis(None).fit_features(fit_rows, labels)
    features, some = Features(queries), queries[: round(scale * len(queries))]
    compare(
        f"mahalanobis, 10000x{WIDTH}, {classes} classes",
        lambda: score(features),
        lambda: peer.predict_features(some) * 2 * FIT_ROWS,
        scale,
        turns,
    )


def gradnorm(classes: int, scale: float, turns: int) -> None:
    """2000 queries through a head of the classes."""
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(WIDTH, classes)
    queries = torch.randn(2000, WIDTH, generator=generator)
    with torch.no_grad():
        features = Features(queries, logits=head(queries))
    score = mood.scores.fit("gradnorm", features)
    peer = GradNorm(head, param_filter=lambda name: name == "weight")
    some = queries[: round(scale * len(queries))]
    compare(
        f"gradnorm, 2000x{WIDTH}, {classes} classes", lambda: score(features), lambda: peer.predict(some), scale, turns
    )


def main() -> None:
    """Runs both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the queries that the peer is timed on")
    parser.add_argument("--turns", type=int, default=3, help="how often each of the two runs")
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"the peer is timed on {arguments.scale:.0%} of the queries, {arguments.turns} turns")
    mahalanobis(arguments.classes, arguments.scale, arguments.turns)
    gradnorm(arguments.classes, arguments.scale, arguments.turns)


if __name__ == "__main__":
    main()
