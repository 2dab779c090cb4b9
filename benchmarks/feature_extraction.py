"""How much faster mood gives features than the plain loop that one would write, and how far the two are apart.

    python benchmarks/feature_extraction.py --images PARQUET

Both read the same image files from a folder with as many worker processes, and take them through the same network with
random weights, which cost what trained ones do. The loop is timm's own transform in a `DataLoader`, float32, eager, no
gradients. Ours is `mood.extract` as it comes, its cache empty before each turn, what it writes there included. They
take turns in one process; the ratio is of the medians.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import mood
from mood.models import open_model


class Files(Dataset[Tensor]):
    """Image files through a transform."""

    def __init__(self, folder: Path, module: nn.Module) -> None:
        self.paths = sorted(folder.iterdir())
        self.transform = create_transform(**resolve_data_config({}, model=module))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> Tensor:
        with Image.open(self.paths[position]) as image:
            transformed: Tensor = self.transform(image.convert("RGB"))
        return transformed


def plain(module: nn.Module, folder: Path, batch_size: int, workers: int) -> Tensor:
    """(N, D) float32, as in many a notebook."""
    found = []
    with torch.no_grad():
        for images in DataLoader(Files(folder, module), batch_size=batch_size, num_workers=workers):
            tokens = module.forward_features(images)
            found.append(module.forward_head(tokens, pre_logits=True))
    return torch.cat(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="Parquet with a column `image` of encoded images")
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--count", type=int, default=96, help="how many of its images")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    torch.manual_seed(0)
    module = timm.create_model(given.model).eval()
    model = open_model(given.model, random_weights=True)
    model.module.load_state_dict(module.state_dict())
    encoded = pq.read_table(given.images, columns=["image"])["image"].to_pylist()[: given.count]
    ours, peer = [], []
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "images"
        folder.mkdir()
        for position, image in enumerate(encoded):
            (folder / f"{position:06}.jpg").write_bytes(image)
        for turn in range(given.turns):
            os.environ["MOOD_CACHE"] = str(Path(work) / f"cache{turn}")
            start = time.perf_counter()
            features = mood.extract(
                folder, model=model, batch_size=given.batch_size, workers=given.workers, device="cpu"
            )
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            expected = plain(module, folder, given.batch_size, given.workers)
            peer.append(time.perf_counter() - start)
    our_time, peer_time = statistics.median(ours), statistics.median(peer)
    apart = torch.nn.functional.cosine_similarity(features.embedding, expected)
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {given.turns} turns")
    print(
        f"{given.model}, {len(encoded)} images: mood {len(encoded) / our_time:.1f} images/s, "
        f"plain loop {len(encoded) / peer_time:.1f} images/s, ratio {peer_time / our_time:.1f}; "
        f"smallest cosine between the two embeddings of an image {float(apart.min()):.5f}"
    )


if __name__ == "__main__":
    main()
