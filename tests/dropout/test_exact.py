"""Draws that keep exactly k units."""

from __future__ import annotations

import math
import pickle
import re

import pytest
import torch
from torch import Tensor

from opennmt_sd import DropoutPattern, KeepMask, KeepSets, MaskedLinear, StructuredLSTM
from opennmt_sd.compat import KNOWS_OPS
from opennmt_sd.dropout import kept_units
from opennmt_sd.dropout import philox as draws
from opennmt_sd.ops.cpu import native
from opennmt_sd.ops.cpu import philox as native_draws


@pytest.mark.parametrize(
    ("p", "D", "k"),
    [
        (0.5, 650, 325),
        (0.65, 1500, 525),
        (0.5, 7, 4),  # a half goes up
        (0.9, 15, 2),  # as it does where binary numbers fall short of it
        (0.3, 45, 32),
        (0.55, 90, 41),
        (0.3, 10, 7),
        (0.999, 10, 1),  # one is left
        (0.5, 1, 1),
        (0.0, 5, 5),
        (0.5, 0, 0),
    ],
)
def test_how_many_are_kept(p: float, D: int, k: int) -> None:
    assert kept_units(p, D) == k
    keep = DropoutPattern(p, count="exact").draw(3, 2, D)
    assert isinstance(keep, KeepSets)
    assert keep.counts == [k] * 3
    assert keep.scale == (D / k if k else 1.0)


def test_each_unit_is_kept_as_often_and_any_two_together() -> None:
    """Of 6 units 3: any with chance 1/2, any two with chance 1/2 * 2/5."""
    torch.manual_seed(1)
    n = 20_000
    kept = DropoutPattern(0.5, count="exact").draw(n, 1, 6).mask()[:, 0].double()
    together = kept.T @ kept / n
    expected = torch.full((6, 6), 0.2, dtype=torch.double).fill_diagonal_(0.5)
    assert (together - expected).abs().max() < 5 * math.sqrt(0.25 / n)


def test_steps_and_seeds_differ_and_one_set_serves_a_sequence() -> None:
    pattern = DropoutPattern(0.5, count="exact")
    torch.manual_seed(3)
    first, second = pattern.draw(4, 2, 50), pattern.draw(4, 2, 50)
    torch.manual_seed(3)
    assert torch.equal(pattern.draw(4, 2, 50).mask(), first.mask())
    assert not torch.equal(first.mask(), second.mask())
    assert not torch.equal(first.mask()[0], first.mask()[1])
    assert DropoutPattern(0.5, time="fixed", count="exact").draw(4, 2, 50).steps == 1


@pytest.mark.parametrize("time", ["random", "fixed"])
def test_a_mask_keeps_what_the_sets_keep(time: str) -> None:
    pattern = DropoutPattern(0.3, time=time, count="exact")
    torch.manual_seed(5)
    sets = pattern.draw(4, 3, 20)
    torch.manual_seed(5)
    mask = pattern.draw_mask(4, 3, 20)
    assert isinstance(mask, KeepMask)
    assert mask.scale == sets.scale == 20 / 14
    assert torch.equal(mask.mask(), sets.mask().expand(-1, 3, -1))


# ---------------------------------------------------------------- the bits


def by_hand(seed: int, S: int, D: int, k: int) -> list[list[int]]:
    """Units by their bits, and of equal ones the first; the first k of them, ascending."""
    bits = draws.random_bits(seed, S * D).view(S, D).tolist()
    return [sorted(sorted(range(D), key=lambda d: (row[d], d))[:k]) for row in bits]


@pytest.mark.parametrize(
    ("S", "D", "k"),
    [(0, 5, 2), (3, 1, 1), (3, 2, 1), (2, 9, 9), (2, 65, 64), (7, 65, 1), (35, 650, 325),
     (300, 40, 20)],
)  # fmt: skip
@pytest.mark.parametrize("form", ["native", "torch"])
def test_sets_are_those_of_the_smallest_bits(
    form: str, S: int, D: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form == "torch":
        monkeypatch.setattr(native_draws, "native", lambda: None)
    elif native() is None:
        pytest.skip("built without a native module: no C++ compiler, or no x86-64")
    for seed in (0, 7, 2**63 - 2):
        idx, count = draws.draw_exact_sets(torch.tensor([seed]), S, D, k)
        assert idx.dtype == count.dtype == torch.int32
        assert count.tolist() == [k] * S
        kept = by_hand(seed, S, D, k)
        assert idx.tolist() == [row + sorted(set(range(D)) - set(row)) for row in kept]


def test_of_equal_bits_the_first_units_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    equal = torch.tensor([5, 3, 5, 5, 3, 9])
    monkeypatch.setattr(draws, "random_bits", lambda seed, n: equal)
    idx, _ = draws.exact_sets_of(torch.tensor([0]), 1, 6, 4)
    assert idx.tolist() == [[0, 1, 2, 4, 3, 5]]


# ---------------------------------------------------------------- as a value


def test_it_is_no_bare_rate() -> None:
    exact = DropoutPattern(0.5, count="exact")
    assert exact != DropoutPattern(0.5)
    assert exact != 0.5
    assert exact == DropoutPattern(0.5, count="exact") == pickle.loads(pickle.dumps(exact))
    assert exact.at(0.2) == DropoutPattern(0.2, count="exact")
    assert float(exact) == 0.5
    assert eval(repr(exact)) == exact


def test_a_pattern_pickled_before_there_was_a_count() -> None:
    old = DropoutPattern(0.5)
    del old.__dict__["count"]
    assert pickle.loads(pickle.dumps(old)) == DropoutPattern(0.5, count="bernoulli")


def test_a_module_keeps_its_count_with_a_new_rate() -> None:
    linear = MaskedLinear(4, 4, dropout=DropoutPattern(0.5, count="exact"))
    linear.dropout = 0.25
    assert linear.dropout == DropoutPattern(0.25, count="exact")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"count": "about"}, "dropout count 'about' is unknown: use one of bernoulli, exact"),
        ({"count": "exact", "space": "random"}, "dropout count 'exact' needs space 'structured'"),
    ],
)
def test_refused(given: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        DropoutPattern(0.5, **given)


# ---------------------------------------------------------------- in a model


def steps(lstm: StructuredLSTM, x: Tensor) -> list[Tensor]:
    torch.manual_seed(2)
    y, _ = lstm(x)
    return [y, *torch.autograd.grad(y.square().sum(), list(lstm.parameters()))]


@pytest.mark.parametrize("dropped", [0.5, 0.99])
def test_a_layer_on_every_engine(dropped: float) -> None:
    from opennmt_sd import ops

    pattern = DropoutPattern(dropped, count="exact")
    lstm = StructuredLSTM(5, 7, 2, dropout=pattern, recurrent_dropout=pattern).double()
    x = torch.randn(4, 3, 5, dtype=torch.double)
    with ops.use("naive"):
        want = steps(lstm, x)
    for engine in ("portable", "auto"):
        with ops.use(engine):
            torch.testing.assert_close(steps(lstm, x), want)


@pytest.mark.skipif(not KNOWS_OPS, reason="torch.compile knows ops of others from torch 2.4 on")
def test_compiled_in_one_graph() -> None:
    linear = MaskedLinear(64, 8, dropout=DropoutPattern(0.5, count="exact"))
    compiled = torch.compile(linear, fullgraph=True, backend="eager", dynamic=True)
    for T in (3, 5, 9):
        x = torch.randn(T, 2, 64)
        torch.manual_seed(4)
        want = linear(x)
        torch.manual_seed(4)
        torch.testing.assert_close(compiled(x), want)
