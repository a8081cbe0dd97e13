"""A mask that is known by its seed is a mask like any other, wherever it is drawn first."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from opennmt_sd import DropoutPattern, KeepMask
from opennmt_sd.compat import KNOWS_OPS
from opennmt_sd.dropout import on_gpu

T, B, D = 3, 2, 5
EACH = DropoutPattern(0.3, "random")


def mask(pattern: DropoutPattern = EACH) -> KeepMask:
    return pattern.draw_mask(T, B, D, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "made",
    [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), dataclasses.replace],
    ids=["copy", "deepcopy", "pickle", "replace"],
)
def test_what_is_made_of_it_is_a_mask_that_is_drawn(made: Callable[[KeepMask], KeepMask]) -> None:
    got = made(mask())
    assert type(got) is KeepMask
    assert torch.equal(got.dense, mask().dense)
    assert got.scale == mask().scale


def test_replaced_by_another_scale() -> None:
    got = dataclasses.replace(mask(), scale=1.0)
    assert torch.equal(got.apply(torch.ones(T, B, D)), mask().dense.float())


def test_used_without_gradients_first() -> None:
    keep, x = mask(), torch.ones(T, B, D, requires_grad=True)
    with torch.inference_mode():
        keep.apply(x)
    keep.apply(x).sum().backward()
    torch.testing.assert_close(x.grad, keep.dense / 0.7)


@pytest.mark.skipif(not KNOWS_OPS, reason="an older torch.compile does not take a keep")
def test_given_to_a_compiled_function() -> None:
    compiled = torch.compile(lambda keep, x: keep.apply(x), backend="eager", fullgraph=True)
    x = torch.ones(T, B, D)
    assert torch.equal(compiled(mask(), x), mask().apply(x))


@pytest.mark.parametrize("given", [mask(), DropoutPattern(0.3).draw(T, B, D)], ids=["mask", "sets"])
def test_factors_are_of_the_precision_of_x(given: Any) -> None:
    factors = given.factors(torch.ones(1, dtype=torch.float64))
    assert set(factors.unique().tolist()) == {0.0, 1 / 0.7}


class Launches:
    """Stands for the kernels, and counts their launches."""

    count = 0

    @property
    def draw(self) -> Launches:
        return self

    draw_exact = draw

    def __getitem__(self, grid: object) -> Callable[..., None]:
        def launch(out: Tensor, *_: object, **__: object) -> None:
            self.count += 1
            out.fill_(1)

        return launch


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    kernel = Launches()
    monkeypatch.setattr(on_gpu, "DEVICES", ("cpu",))
    monkeypatch.setattr(on_gpu, "_kernels", lambda: kernel)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return kernel


CPU = torch.device("cpu")


def test_one_launch_makes_what_is_dropped(launches: Launches) -> None:
    assert mask().dropped(CPU).all()
    assert launches.count == 1


def test_what_is_drawn_already_is_not_drawn_again(launches: Launches) -> None:
    keep = mask()
    assert torch.equal(~keep.dense, keep.dropped(CPU))
    assert launches.count == 0


def test_float64_is_not_what_a_kernel_is_told(launches: Launches) -> None:
    factors = mask().factors(torch.ones(1, dtype=torch.float64))
    assert torch.equal(factors, mask().dense * torch.tensor(1 / 0.7, dtype=torch.float64))
    assert launches.count == 0


def test_a_graph_that_is_captured_has_no_seed(
    launches: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert torch.equal(mask().dropped(CPU), ~mask().dense)
    assert launches.count == 0


@pytest.mark.parametrize("pattern", [EACH, DropoutPattern(0.3, count="exact")], ids=str)
def test_nor_has_a_transform(
    launches: Launches, caplog: pytest.LogCaptureFixture, pattern: DropoutPattern
) -> None:
    def dropped(x: Tensor) -> Tensor:
        return x * pattern.draw_mask(T, B, D).dropped(CPU)

    apart = torch.func.vmap(dropped, randomness="different")(torch.ones(40, T, B, D))
    assert not torch.equal(apart[0], apart[1])
    assert (apart.mean(0) > 0).all()
    torch.func.grad(lambda x: dropped(x).sum())(torch.ones(T, B, D))
    assert launches.count == 0
    assert not caplog.messages


@pytest.mark.skipif(not KNOWS_OPS, reason="an older torch makes no fakes of our ops")
def test_nor_has_a_fake(launches: Launches) -> None:
    with FakeTensorMode():
        assert EACH.draw_mask(T, B, D).dropped(CPU).shape == (T, B, D)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert mask().dropped(CPU).shape == (T, B, D)
    assert launches.count == 0
