"""bf16 products from kept layouts are the products of the weights as they are now, and nothing else changes."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from mood.models import Embedder, open_model
from mood.models.packing import SMALLEST, PackedLinear, can_pack

packs = pytest.mark.skipif(not can_pack(), reason="this build of torch has no oneDNN, or the processor no AVX-512")

EPS = 2**-8
"""Of bf16: half a unit in the last place of a rounded number, and as much for each factor."""


def made(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@packs
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [(1,), (7,), (3, 5), (2, 3, 4)])
def test_a_product_is_that_of_float64_up_to_rounding(rows, bias):
    layer = nn.Linear(300, 250, bias=bias)
    inputs = made(*rows, 300)
    with torch.no_grad(), PackedLinear():
        found = layer(inputs)
    assert found.dtype == torch.bfloat16
    weight = layer.weight.double()
    expected = functional.linear(inputs.double(), weight, layer.bias.double() if bias else None)
    bound = functional.linear(inputs.double().abs(), weight.abs()) * 2 * EPS + EPS * expected.abs() + EPS
    assert ((found.double() - expected).abs() <= bound).all()


@packs
def test_a_weight_that_has_changed_is_laid_out_anew():
    layer, inputs, packed = nn.Linear(300, 250, bias=False), made(4, 300), PackedLinear()
    with torch.no_grad():
        with packed:
            before = layer(inputs)
        layer.weight.mul_(-2)
        with packed:
            after = layer(inputs)
    torch.testing.assert_close(after, -2 * before)


@packs
def test_layouts_go_with_their_weights():
    packed = PackedLinear()
    layer = nn.Linear(300, 250)
    with torch.no_grad(), packed:
        layer(made(4, 300))
        assert len(packed._packed) == 1
        del layer
        assert len(packed._packed) == 0


@pytest.mark.parametrize("case", ["small", "gradient", "no parameter", "made for inference", "one row without a batch"])
def test_other_products_are_left_as_they_are(case):
    width = 300 if case != "small" else int(SMALLEST**0.5) - 1
    with torch.inference_mode(case == "made for inference"):
        layer = nn.Linear(width, width)
    inputs = made(width) if case == "one row without a batch" else made(4, width)
    weight = layer.weight.detach() if case == "no parameter" else layer.weight
    with torch.set_grad_enabled(case == "gradient"):
        with PackedLinear():
            found = functional.linear(inputs, weight, layer.bias)
        assert torch.equal(found, functional.linear(inputs, weight, layer.bias))
        assert found.requires_grad == (case == "gradient")


@pytest.mark.parametrize("packed", [pytest.param(True, marks=packs), False])
def test_an_embedding_in_bf16_is_near_that_of_float32(packed, monkeypatch):
    """Also where the processor has no such instructions: a detector of another machine keeps its precision."""
    if not packed:
        # Here it may have them: what would use them must not be reached.
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
        monkeypatch.setattr(PackedLinear, "_product", None)
    model = open_model("beit_base_patch16_224", options={"depth": 2}, random_weights=True)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    found, expected = (Embedder(model, device="cpu", precision=name)(pixels)[0] for name in ("bf16", "fp32"))
    assert functional.cosine_similarity(found, expected).min() > 0.999
    assert not torch.equal(found, expected)
