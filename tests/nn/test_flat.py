"""cuDNN's flat weights: each call's in one buffer of their own, whatever happens to a module."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from opennmt_sd import DropoutPattern, StructuredGRU, StructuredLSTM, ops
from opennmt_sd.nn import flat
from opennmt_sd.ops import engines

T, B, D, H = 3, 2, 5, 4


def flatten(layers: Any) -> None:
    """Do what cuDNN does with the weights of a call: matrices, then biases, in one buffer."""
    weights: list[Tensor] = layers._flat_weights
    ordered = sorted(weights, key=lambda w: -w.dim())  # stable
    buffer = torch.cat([w.detach().flatten() for w in ordered])
    for weight, part in zip(ordered, buffer.split([w.numel() for w in ordered])):
        weight.data = part.view(weight.shape)


def is_flat(weights: list[Tensor]) -> bool:
    """Say whether cuDNN takes the weights of a call as they are."""
    at, first = 0, weights[0].untyped_storage()
    for weight in sorted(weights, key=lambda w: -w.dim()):
        if (weight.untyped_storage().data_ptr(), weight.storage_offset()) != (first.data_ptr(), at):
            return False
        at += weight.numel()
    return True


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """On a CPU as on a GPU: the layers of each call of torch's own; all weights are flat."""
    seen: list[int] = []

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            packed = not isinstance(given[3], bool)
            weights, layers = (given[3], given[5]) if packed else (given[2], given[4])
            assert is_flat(weights), f"call {len(seen)} of {layers} layers would copy its weights"
            seen.append(layers)
            return real(*given)

        return run

    for name in ("lstm", "gru"):
        monkeypatch.setattr(torch._VF, name, watched(getattr(torch._VF, name)))
    monkeypatch.setattr(nn.RNNBase, "flatten_parameters", flatten)
    monkeypatch.setattr(flat, "wanted", lambda _: True)
    with ops.use("dense"):
        yield seen


KINDS = pytest.mark.parametrize("kind", [StructuredLSTM, StructuredGRU])


@KINDS
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    ("dropout", "want"), [({}, [3]), ({"input_dropout": 0.5}, [3]), ({"dropout": 0.5}, [1, 1, 1])]
)
def test_one_call_where_nothing_differs(calls, kind, bidirectional, dropout, want) -> None:
    layers = kind(D, H, 3, bidirectional=bidirectional, **dropout)
    for _ in range(2):
        layers(torch.randn(T, B, D))
    assert calls == want * 2
    layers.eval()(torch.randn(T, B, D))
    assert calls == want * 3, "the buffers stay what they are"


@KINDS
def test_without_biases(calls, kind) -> None:
    kind(D, H, 2, bias=False, dropout=0.5)(torch.randn(T, B, D))
    assert calls == [1, 1]


def reloaded(layers: nn.Module) -> nn.Module:
    layers.load_state_dict(copy.deepcopy(layers.state_dict()), assign=True)
    return layers


def torn(layers: nn.Module) -> nn.Module:
    layers.weight_hh_l1 = nn.Parameter(layers.weight_hh_l1.detach().clone())
    return layers


@KINDS
@pytest.mark.parametrize(
    "change",
    [
        copy.deepcopy, reloaded, torn, lambda layers: layers.double().float(),
        lambda layers: (layers.flatten_parameters(), layers)[1],
        lambda layers: (layers.load_state_dict(layers.state_dict()), layers)[1],
    ],
    ids=["deepcopy", "assigned", "one weight", "dtype", "flatten", "loaded"],
)  # fmt: skip
def test_they_stay_flat(calls, kind, change: Callable[[nn.Module], nn.Module]) -> None:
    layers = kind(D, H, 2, dropout=0.5)
    x = torch.randn(T, B, D)
    layers(x)
    layers = change(layers)
    layers(x)[0].sum().backward()
    assert calls == [1, 1, 1, 1]


def test_a_pattern_that_comes_and_goes(calls) -> None:
    layers = StructuredLSTM(D, H, 2)
    x = torch.randn(T, B, D)
    for rate in (0.0, 0.5, 0.0):
        layers.dropout = rate
        layers(x)
    assert calls == [2, 1, 1, 2]


def test_values_are_those_of_layers_that_are_not_flat(calls) -> None:
    half = DropoutPattern(0.5)
    layers = StructuredLSTM(D, H, 2, dropout=half, input_dropout=half)
    x = torch.randn(T, B, D)
    found = []
    for engine in ("dense", "naive"):
        torch.manual_seed(1)
        with ops.use(engine):
            y = layers(x)[0]
        found.append([y, *torch.autograd.grad(y.sum(), list(layers.parameters()))])
    assert calls == [1, 1]
    torch.testing.assert_close(found[0], found[1])


@KINDS
@pytest.mark.parametrize("layers", [1, 2])
def test_columns_that_are_gathered_are_flat_too(calls, kind, layers, monkeypatch) -> None:
    monkeypatch.setitem(engines.GATHERED, "cpu", 0)
    fixed = DropoutPattern(0.5, time="fixed")
    module = kind(D, H, layers, bidirectional=True, input_dropout=fixed)
    module(torch.randn(T, B, D))[0].sum().backward()
    assert calls == [layers]
