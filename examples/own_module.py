"""A detector around a classifier of your own: its module, how its input is made, and the name of its last layer.

Run it: `python examples/own_module.py`. It takes the clothes that come with mood for the known world.
"""

import torch
from torch import nn

import mood


def classifier(classes: int) -> nn.Module:
    """A stand-in for yours, and untrained, so expect nothing of its figures: (N, 3, H, W) → (N, classes)."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )


def main() -> None:
    """Fit, save, load and score."""
    module = classifier(classes=10)
    # What your evaluation code does to an image; see `mood.Transform.from_pretrained_cfg` for networks of timm.
    transform = mood.Transform(size=(64, 64), resize=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

    # mood cannot know what your network was trained on, so the cut of these images does not verify the promise:
    # give images that it has not seen with `calibration=`.
    # This one was never trained and names nothing rightly, which is refused; `other_classes` says that its outputs are
    # not the classes of the images. Leave it out with a classifier of them, so that a wrong transform shows.
    detector = mood.fit(
        "clothing", model=module, transform=transform, head="6", alpha=0.05, limit=300, other_classes=True
    )
    print("promise verified:", detector.promise.verified, "-", detector.promise.reason)

    # Your code stays yours: the folder holds the statistics, and a fingerprint of the weights they belong to.
    detector.save("own-detector")
    detector = mood.load("own-detector", model=classifier(classes=10))

    for name in ("omniglot", "bccd"):
        flagged = detector(name)["is_ood"].to_pylist()
        print(f"{name}: {sum(flagged)} of {len(flagged)} flagged")


if __name__ == "__main__":
    main()
