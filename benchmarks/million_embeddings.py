"""One million embeddings of 768 dimensions, 3 GB on disk: what fitting costs in memory and time.

```
python benchmarks/million_embeddings.py
```

Writes the shards to a temporary folder, fits `mood` and `mahalanobis` (1000 classes) from there, and deletes them.
Memory is the peak resident size of the process above what it had after its imports; pages of mapped files count.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch

import mood.scores
from mood.core.feature_store import FeatureStore
from mood.core.features import Features

WIDTH, CLASSES = 768, 1000


def resident() -> float:
    """Resident memory now, in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def write(folder: Path, rows: int, shard_rows: int) -> FeatureStore:
    """A store of `rows` embeddings around 1000 class centres."""
    centres = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(0))
    writer = FeatureStore.create(folder, {"made by": "benchmarks/million_embeddings.py"})
    for index, start in enumerate(range(0, rows, shard_rows)):
        generator = torch.Generator().manual_seed(index + 1)
        size = min(shard_rows, rows - start)
        labels = torch.randint(0, CLASSES, (size,), generator=generator)
        embedding = torch.randn(size, WIDTH, generator=generator).add_(centres[labels])
        writer.append(index, Features(embedding, ids=range(start, start + size), labels=labels))
    return writer.finish()


def main() -> None:
    """Writes, fits, and prints."""
    before = resident()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shard-rows", type=int, default=20_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        store = write(Path(folder) / "features", arguments.rows, arguments.shard_rows)
        print(f"wrote {len(store)} x {WIDTH} in {len(store.rows)} shards: {time.perf_counter() - start:.1f} s")
        for name in ("mood", "mahalanobis"):
            start = time.perf_counter()
            mood.scores.fit(name, store)
            print(f"fit {name}: {time.perf_counter() - start:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(f"{torch.get_num_threads()} threads; {before:.0f} MB after imports, peak {peak - before:.0f} MB above")


if __name__ == "__main__":
    main()
