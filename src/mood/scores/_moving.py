"""Scores of images that were moved along a gradient first.

Such a score says what each image is to be moved for, as something that can be differentiated; whoever has the network
moves the image, x̃ = x − (ε / std)·sign(∇ₓ objective), extracts again, and applies the score. ε is in units of pixels
from 0 to 1, which the network's input divides by its std; so it is the sign that is divided.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from mood.core.features import Features


@runtime_checkable
class Moving(Protocol):
    """A score that wants its images moved.

    Attributes:
        epsilon: how far, in units of pixels from 0 to 1; 0 leaves them.
    """

    epsilon: float

    def objectives(self, columns: Mapping[str, Tensor]) -> Sequence[Tensor]:
        """What one image after the other is moved to make smaller, (n,) each; every one gives an image of its own.

        Args:
            columns: (n, …) "logits", "layers.0", … of the images as they are, with their gradient.
        """
        ...

    def of_moved(self, moved: Sequence[Features]) -> Features:
        """One set of features from those of the images moved for each objective."""
        ...

    def __call__(self, features: Features, /) -> Tensor:
        """(N,) float64, higher = more OOD, of features that `of_moved` gave."""
        ...
