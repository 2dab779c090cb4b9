"""Scaled activations: Xu, Chen, Franchi, Yao: Scaling for Training Time and Post-hoc OOD Detection, ICLR 2024."""

from typing import Any

from mood.core.features import Head
from mood.scores._registry import fitted
from mood.scores._round import Round
from mood.scores.ash import Shaped, shaping


@fitted("scale", Shaped, needs=("embedding", "head"), source="Xu et al., ICLR 2024 (SCALE)")
def scale(head: Head, *, percentile: float = 0.85) -> tuple[Round[Any, Any, Any], ...]:
    """Energy of the head on the whole embedding times the exponential of its sum over the sum of its largest entries.

    Exponents count up to 600. Learns nothing from ID images; for any number of them it needs the head alone.

    For 1000 classes × 1M images of 768 values: the head, 6 MB; the fit images are counted alone.

    Args:
        head: the linear head of the network, (K, D).
        percentile: share of the activations that the second sum leaves out, in (0, 1): 0.85 is the paper's choice.

    Raises:
        InputError: percentile out of range, no rows, or a head of another width.
    """
    return shaping(head, "scale", percentile)
