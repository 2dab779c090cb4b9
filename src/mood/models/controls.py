"""Controls: networks that have learned nothing, to hold beside one that has."""

import torch
from torch import Tensor, nn

from mood.core.transform import Transform
from mood.models.model import Model


class ChannelStatistics(nn.Module):
    """Six numbers per image: mean and standard deviation of each colour channel.

    Far-OOD sets often differ from the known images in colour and contrast alone; a figure that these six numbers reach
    as well says nothing about the network.
    """

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, 6)."""
        return torch.cat((images.mean(dim=(2, 3)), images.std(dim=(2, 3), correction=0)), dim=1)


def six_numbers(transform: Transform) -> Model:
    """The control as a model that is fed what the network is fed."""
    return Model(
        name="six numbers",
        module=ChannelStatistics().eval(),
        transform=transform,
        history=(),
        seen=torch.empty(0, dtype=torch.int64),
        source="channel means and standard deviations",
    )
