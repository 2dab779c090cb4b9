"""The closed form of GradNorm against the gradient that it stands for."""

import numpy as np
import pytest
import torch

from mood import scores
from mood.core.features import Features


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_it_is_the_norm_of_the_gradient(temperature):
    """Huang et al. 2021, equation 3: one backward pass per image through the weight of the head."""
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(20, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, generator=generator, dtype=torch.float64)
    expected = []
    for row in embedding:
        uniform = torch.full((4,), 0.25, dtype=torch.float64)
        loss = -(uniform * ((weight @ row + bias) / temperature).log_softmax(0)).sum()
        (gradient,) = torch.autograd.grad(loss, weight)
        expected.append(-float(gradient.abs().sum()))
    features = Features(embedding, logits=embedding @ weight.T + bias)
    found = scores.fit("gradnorm", features, temperature=temperature)(features)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)
