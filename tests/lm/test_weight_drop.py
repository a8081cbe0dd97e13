"""DropConnect as a parametrization of weight_hh."""

from __future__ import annotations

import copy

import pytest
import torch

from opennmt_sd import StructuredGRU, StructuredLSTM
from opennmt_sd.lm.weight_drop import WeightDrop, drop_recurrent_weights

Layers = StructuredLSTM | StructuredGRU


@pytest.fixture(params=[StructuredLSTM, StructuredGRU])
def pair(request: pytest.FixtureRequest) -> tuple[Layers, Layers]:
    """Layers, and the same with dropped weights."""
    plain = request.param(6, 5, 2)
    dropped = copy.deepcopy(plain)
    drop_recurrent_weights(dropped, 0.5)
    return plain, dropped


def test_parameters(pair) -> None:
    names = {name for name, _ in pair[1].named_parameters() if "hh" in name and "weight" in name}
    assert names == {f"parametrizations.weight_hh_l{k}.original" for k in (0, 1)}


def test_evaluation_is_undropped(pair) -> None:
    plain, dropped = pair
    x = torch.randn(4, 3, 6)
    assert torch.equal(plain.eval()(x)[0], dropped.eval()(x)[0])


def test_training_is_the_formula(pair) -> None:
    plain, layers = pair
    x = torch.randn(4, 3, 6)
    originals = [getattr(layers.parametrizations, f"weight_hh_l{k}").original for k in (0, 1)]
    torch.manual_seed(5)
    got = layers(x)[0]
    grads = torch.autograd.grad(got.pow(2).sum(), originals)
    torch.manual_seed(5)
    ones = torch.ones(layers.gates * 5, 5)
    kept = [torch.nn.functional.dropout(ones, 0.5) for _ in range(2)]  # 0 or 2
    weights = [w.detach().clone().requires_grad_() for w in originals]
    for k in (0, 1):
        delattr(plain, f"weight_hh_l{k}")
        setattr(plain, f"weight_hh_l{k}", weights[k] * kept[k])
    want = plain(x)[0]
    torch.testing.assert_close(got, want)
    for g, w, mask in zip(grads, torch.autograd.grad(want.pow(2).sum(), weights), kept):
        torch.testing.assert_close(g, w)
        assert (g[mask == 0] == 0).all()


def test_a_mask_is_drawn_each_forward(pair) -> None:
    _, layers = pair
    x = torch.randn(4, 3, 6)
    assert not torch.equal(layers(x)[0], layers(x)[0])


def test_wrong_rate() -> None:
    with pytest.raises(ValueError) as error:
        WeightDrop(1.0)
    assert str(error.value) == (
        "weight_drop 1.0 is outside [0, 1): it is the share of units dropped; 0 drops nothing"
    )
