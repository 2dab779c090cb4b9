"""No pre-training at all: the first row of Tables 3 and 4."""

from torch import nn

from mood.models.pretexts.interface import Pretext


class Scratch(Pretext):
    """The encoder as it was initialised; there is nothing to optimise.

    Args:
        encoder: any timm network.
    """

    trained = False

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
