"""Which small transformer learns most in a given time? Equal CPU time for each shape, one thread, CIFAR-100.

    python benchmarks/shapes.py --data-root DIR --minutes 10

A shape spends the first part of its time on masked autoencoding of CIFAR-100's training images and the rest on their
labels; what is compared is the accuracy on the images that the hash cut holds out, never on a test set. Time is that of
the process, so that a busy machine slows all shapes down alike. Images are held in memory and varied by shifts and
mirror images alone: this compares shapes, it does not make weights.
"""

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from mood.core.transform import Transform
from mood.data import batches, held_out, open_source
from mood.models import Architecture, MaskedAutoencoder, input_transform, without_fused_attention

SHAPES = {
    "patch 4, 128 x 6": Architecture("mood_vit_patch4_32", {"embed_dim": 128, "num_heads": 4}),
    "patch 4, 192 x 6": Architecture("mood_vit_patch4_32", {}),
    "patch 4, 192 x 9": Architecture("mood_vit_patch4_32", {"depth": 9}),
    "convolutions to 8 x 8, 128 x 6": Architecture(
        "mood_vit_conv4_32", {"embed_dim": 128, "num_heads": 4, "stem_channels": [32, 64]}
    ),
    "convolutions to 8 x 8, 192 x 6": Architecture("mood_vit_conv4_32", {}),
    "convolutions to 4 x 4, 192 x 9": Architecture(
        "mood_vit_conv4_32", {"depth": 9, "stem_channels": [32, 64, 128], "stem_strides": [1, 2, 2, 2]}
    ),
    "convolutions to 4 x 4, 256 x 6": Architecture(
        "mood_vit_conv4_32",
        {"embed_dim": 256, "num_heads": 4, "stem_channels": [32, 64, 128], "stem_strides": [1, 2, 2, 2]},
    ),
}
BATCH = 128
PEAK = 1e-3


def images_of(name: str, root: str, transform: Transform) -> tuple[Tensor, Tensor, np.ndarray]:
    """Pixels (N, 32, 32, 3) uint8, labels (N,) and which images are held out."""
    source = open_source(name, roots=[root])
    parts = list(batches(source, transform, batch_size=512))
    pixels = torch.from_numpy(np.concatenate([part.pixels for part in parts]))
    labels = torch.from_numpy(np.concatenate([part.labels for part in parts if part.labels is not None]))
    return pixels, labels, held_out(source.manifest.hashes)


def draws(pixels: Tensor, transform: Transform) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of shifted and mirrored images with their rows."""
    padded = torch.nn.functional.pad(pixels, (0, 0, 4, 4, 4, 4))
    while True:
        rows = torch.randint(len(pixels), (BATCH,))
        top, left = torch.randint(0, 9, (2,)).tolist()
        chosen = padded[rows, top : top + 32, left : left + 32]
        flip = torch.rand(BATCH) < 0.5
        chosen[flip] = chosen[flip].flip(2)
        yield torch.from_numpy(transform.normalise(chosen.numpy())), rows


def optimise(module: nn.Module, loss_of: Callable[[], Tensor], seconds: float) -> int:
    """AdamW with warm-up and cosine over CPU time; returns the number of steps."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=PEAK, weight_decay=0.05)
    start, steps = time.process_time(), 0
    while (done := (time.process_time() - start) / seconds) < 1:
        rate = PEAK * min(1.0, done / 0.1) * (0.5 + 0.5 * float(np.cos(np.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        steps += 1
    return steps


def compare(architecture: Architecture, root: str, seconds: float, share: float) -> str:
    """One row of the table."""
    torch.manual_seed(0)
    encoder = architecture.build(num_classes=0)
    transform = input_transform(encoder)
    pixels, labels, cut = images_of("cifar100:train", root, transform)
    known, known_labels = pixels[~cut], labels[~cut]
    stream = draws(known, transform)
    autoencoder = without_fused_attention(
        MaskedAutoencoder(encoder, decoder_width=96, decoder_depth=1, decoder_heads=3)
    )

    def masked() -> Tensor:
        loss: Tensor = autoencoder.reconstruct(next(stream)[0], torch.rand(BATCH, autoencoder.patches)).loss
        return loss

    seen_masked = optimise(autoencoder, masked, share * seconds) * BATCH if share else 0
    network = without_fused_attention(architecture.build(num_classes=100))
    network.load_state_dict(encoder.state_dict(), strict=False)

    def labelled() -> Tensor:
        images, rows = next(stream)
        return nn.functional.cross_entropy(network(images).float(), known_labels[rows], label_smoothing=0.1)

    seen = optimise(network, labelled, (1 - share) * seconds) * BATCH
    network.eval()
    right = 0
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, int(cut.sum()), 500):
            images = torch.from_numpy(transform.normalise(pixels[cut][start : start + 500].numpy()))
            right += int((network(images).argmax(1) == labels[cut][start : start + 500]).sum())
    parameters = sum(value.numel() for value in network.parameters()) / 1e6
    return (
        f"{parameters:.2f} | {seen_masked / max(share * seconds, 1e-9):.0f} | {seen / ((1 - share) * seconds):.0f} | "
        f"{right / cut.sum():.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--minutes", type=float, default=10.0, help="of CPU time for each shape")
    parser.add_argument("--pretrain-share", type=float, default=0.4, help="of that time for masked autoencoding")
    parser.add_argument("--shape", action="append", choices=sorted(SHAPES), help="only this one (may be repeated)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| shape | M parameters | masked images/s | labelled images/s | accuracy |", flush=True)
    print("|---|---:|---:|---:|---:|", flush=True)
    for name in given.shape or SHAPES:
        row = compare(SHAPES[name], given.data_root, 60 * given.minutes, given.pretrain_share)
        print(f"| {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
