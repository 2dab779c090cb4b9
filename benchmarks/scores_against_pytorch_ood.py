"""How fast scores are beside pytorch-ood 0.4.0, on the same numbers, and whether they agree: a Markdown table.

```
python benchmarks/scores_against_pytorch_ood.py              # the peer in full: many minutes
python benchmarks/scores_against_pytorch_ood.py --scale 0.1  # its slowest three on a tenth of the queries, time × 10
```

All are 768 wide, with 1000 classes:

* Mahalanobis and relative Mahalanobis: 10 000 queries. The peer's covariances lack the 1/N, so it is multiplied by N,
  and the first by 2 as well, since it halves the distance.
* GradNorm: 2000 queries.
* KNN: 10 000 queries against a bank of 50 000; k = 50.
* ViM: the fit on 50 000 rows, and 10 000 queries. mood gets the logits with the features, the peer computes them.
* Energy: 50 000 rows of logits.

Both run in one process, by turns, on the same threads; each figure is a median. Beside the time on the clock stands
the time on the processor, which says more where a machine is shared.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from pytorch_ood import detector as peers
from torch import Tensor

import mood.scores
from mood.core.features import Features, Head

WIDTH, FIT_ROWS, BANK = 768, 20_000, 50_000
REPEATS = 3
"""Calls of ours for each of the peer's, which mostly last much longer: one may meet a busy moment."""

Timed = tuple[float, float, Tensor]


def timed(function: Callable[[], Tensor]) -> Timed:
    """Seconds of one call on the clock and on the processor, and what it returned."""
    start, used = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - start, time.process_time() - used, result


def compare(name: str, ours: Callable[[], Tensor], peer: Callable[[], Tensor], turns: int, scale: float = 1.0) -> None:
    """Prints a row: the medians, their ratios and the largest relative difference of the values."""
    ours()
    our_runs, peer_runs = [], []
    for _ in range(turns):
        our_runs += [timed(ours) for _ in range(REPEATS)]
        peer_runs.append(timed(peer))
    our_clock, our_processor = (statistics.median(run[part] for run in our_runs) for part in (0, 1))
    clock, processor = (statistics.median(run[part] for run in peer_runs) / scale for part in (0, 1))
    expected = peer_runs[-1][2].detach().double()
    found = our_runs[-1][2][: len(expected)]
    difference = float(((found - expected).abs() / found.abs()).max())
    print(
        f"| {name} | {our_clock:.3f} ({our_processor:.3f}) | {clock:.3f} ({processor:.3f}) | "
        f"{clock / our_clock:.3g} ({processor / our_processor:.3g}) | {difference:.1e} |",
        flush=True,
    )


def gaussians(classes: int, scale: float, turns: int) -> None:
    """Both distances, 10 000 queries against the classes."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, WIDTH, generator=generator)
    labels = torch.arange(FIT_ROWS) % classes
    fit_rows = centres[labels] + torch.randn(FIT_ROWS, WIDTH, generator=generator)
    queries = torch.randn(10_000, WIDTH, generator=generator) * 1.5
    features, some = Features(queries), queries[: round(scale * len(queries))]
    for name, kind, factor in (("mahalanobis", peers.Mahalanobis, 2), ("relative_mahalanobis", peers.RMD, 1)):
        score = mood.scores.fit(name, Features(fit_rows, labels=labels))
        peer = kind(None).fit_features(fit_rows, labels)
        compare(
            f"`{name}`, 10,000 queries",
            lambda score=score: score(features),
            lambda peer=peer, factor=factor: peer.predict_features(some) * factor * FIT_ROWS,
            turns,
            scale,
        )


def gradnorm(classes: int, scale: float, turns: int) -> None:
    """2000 queries through a head of the classes."""
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(WIDTH, classes)
    queries = torch.randn(2000, WIDTH, generator=generator)
    with torch.no_grad():
        features = Features(queries, logits=head(queries))
    score = mood.scores.fit("gradnorm", features)
    peer = peers.GradNorm(head, param_filter=lambda name: name == "weight")
    some = queries[: round(scale * len(queries))]
    compare("`gradnorm`, 2,000 queries", lambda: score(features), lambda: peer.predict(some), turns, scale)


def knn(bank: int, turns: int) -> None:
    """A fifth as many queries as rows in the bank."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(bank, WIDTH, generator=generator)
    queries = torch.randn(bank // 5, WIDTH, generator=generator)
    score, features = mood.scores.fit("knn", Features(rows)), Features(queries)
    peer = peers.KNN(None, k=50).fit_features(rows, torch.zeros(bank, dtype=torch.int64))
    name = f"`knn`, {len(queries):,} queries, bank of {bank:,}"
    compare(name, lambda: score(features), lambda: peer.predict_features(queries), turns)


def vim(classes: int, bank: int, turns: int) -> None:
    """The fit, whose result shows in the scores of ten queries, and a fifth as many queries as fit rows."""
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(WIDTH, classes)
    # Spread unevenly, as features are; with one size in all directions no subspace would be a principal one.
    rows, queries = (
        torch.randn(count, WIDTH, generator=generator) * torch.linspace(0.1, 2, WIDTH) for count in (bank, bank // 5)
    )
    with torch.no_grad():
        fit_rows, features = (Features(part, logits=linear(part) + 1) for part in (rows, queries))
        linear.bias += 1
    head = Head(linear.weight.detach(), linear.bias.detach())
    labels = torch.zeros(bank, dtype=torch.int64)

    def fitted() -> peers.ViM:
        return peers.ViM(None, 512, linear.weight, linear.bias).fit_features(rows, labels)

    compare(
        f"`vim`, fit on {bank:,} rows",
        lambda: mood.scores.fit("vim", fit_rows, head=head)(features[:10]),
        lambda: fitted().predict_features(queries[:10]),
        turns,
    )
    score, peer = mood.scores.fit("vim", fit_rows, head=head), fitted()
    name = f"`vim`, {len(queries):,} queries"
    compare(name, lambda: score(features), lambda: peer.predict_features(queries), turns)


def energy(classes: int, rows: int, turns: int) -> None:
    """Logits alone: as little work as a score can have."""
    logits = torch.randn(rows, classes, generator=torch.Generator().manual_seed(0))
    features = Features(torch.zeros(rows, 1), logits=logits)
    score, peer = mood.scores.fit("energy", features), peers.EnergyBased(None)
    name = f"`energy`, {rows:,} rows of logits"
    compare(name, lambda: score(features), lambda: peer.predict_logits(logits), turns)


def main() -> None:
    """Runs all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--bank", type=int, default=BANK, help="rows of knn's bank and of vim's fit")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the queries that slow peers are timed on")
    parser.add_argument("--turns", type=int, default=3, help="how often each of the two runs")
    parser.add_argument("--only", choices=("energy", "vim", "knn", "gradnorm", "gaussians"), help="one of the parts")
    arguments = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}; "
    )
    print(
        f"slow peers on {arguments.scale:.0%} of the queries, {arguments.turns} turns; seconds on the clock (processor)"
    )
    print("\n| what | mood | pytorch-ood | ratio | largest relative difference |\n|---|---:|---:|---:|---:|")
    parts = {
        "energy": lambda: energy(arguments.classes, arguments.bank, arguments.turns),
        "vim": lambda: vim(arguments.classes, arguments.bank, arguments.turns),
        "knn": lambda: knn(arguments.bank, arguments.turns),
        "gradnorm": lambda: gradnorm(arguments.classes, arguments.scale, arguments.turns),
        "gaussians": lambda: gaussians(arguments.classes, arguments.scale, arguments.turns),
    }
    for name, part in parts.items():
        if arguments.only in (None, name):
            part()


if __name__ == "__main__":
    main()
