"""Reconstruction error of the masked-image model itself.

He, Chen, Xie, Li, Dollár, Girshick: Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, for the error. The
paper of MOOD takes features, not this error, and nothing suggests that it is strong alone.
"""

from torch import Tensor

from mood.core.features import Features
from mood.scores._registry import stateless


@stateless("mim_reconstruction", needs=("reconstruction",), source="He et al., CVPR 2022 (MAE), for the error")
def mim_reconstruction(features: Features) -> Tensor:
    """Masked reconstruction error of the network's own pre-training, averaged over seeded masks.

    Needs nothing but the column, whatever the number of images.

    Args:
        features: with reconstruction (N,).

    Returns:
        (N,) float64, ≥ 0, higher = more OOD.

    Raises:
        InputError: no reconstruction.
    """
    return features.need("reconstruction").double()
