"""What a recurrent layer makes of operands: layouts, NaN, infinity, half precision, emptiness."""

from __future__ import annotations

import pytest
import torch

from opennmt_sd import KeepSets, ops

KINDS = ["structured", "fixed", "mask", "fixed mask", "staggered", None]
some_pairs = pytest.mark.parametrize(
    "kinds",
    [("structured", "structured"), ("fixed", "mask"), ("mask", "fixed"),
     ("fixed mask", "fixed mask"), (None, None)],
    ids=str,
)  # fmt: skip


@some_pairs
def test_memory_layouts(any_engine: str, cell, kinds, draw_both, compare) -> None:
    """Transposed and expanded tensors mean the same as contiguous ones, and are not written to."""
    given = cell.make(4, 3, 9, 5, dtype=torch.float64)
    keeps = draw_both(kinds, 0.5, 4, 3, 9, 5)
    odd = dict(given)
    odd["x"] = given["x"].transpose(0, 1).contiguous().transpose(0, 1)
    for name in ("weight_ih", "weight_hh"):
        odd[name] = given[name].t().contiguous().t()
    for name in {"bias", "bias_hn"} & given.keys():
        odd[name] = given[name][:1].expand_as(given[name])
    for name in (*cell.states, *(f"d{state}" for state in cell.states)):
        odd[name] = given[name][:1].expand(3, 5)
    odd["dy"] = given["dy"][..., :1].expand(4, 3, 5)
    assert not any(t.is_contiguous() for t in odd.values())
    before = {n: t.contiguous().clone() for n, t in odd.items()}
    leaves = {n: odd[n].detach().requires_grad_() for n in cell.inputs}
    outputs = cell(leaves, keeps)
    torch.autograd.backward(outputs, cell.cotangents(odd))
    compare(cell.results(outputs, leaves), cell.run("naive", keeps, before))
    for name, tensor in odd.items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("poison", [torch.nan, torch.inf], ids=str)
@some_pairs
def test_what_is_dropped_is_never_read(any_engine, cell, kinds, poison, draw_both, compare) -> None:
    """Of a GRU's state, no product reads it; the update gate does, in that unit alone."""
    given, keeps = cell.make(4, 3, 9, 17, dtype=torch.float64), draw_both(kinds, 0.5, 4, 3, 9, 17)
    names = ("x", "h") if cell.op is ops.lstm_layer else ("x",)
    want = cell.run("naive", keeps, given)
    for name, keep in zip(names, keeps):
        if keep is not None:
            kept = keep.mask().expand(4, 3, -1)
            given[name] = torch.where(kept if name == "x" else kept[0], given[name], poison)
    compare(cell.run(any_engine, keeps, given), want)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf], ids=str)
@pytest.mark.parametrize("kind", ["structured", "fixed", "mask"])
@pytest.mark.parametrize("cell", ["GRU"], indirect=True)
def test_no_product_reads_a_dropped_state(any_engine, cell, kind, poison, draw, compare) -> None:
    given, keep = cell.make(1, 3, 9, 17, dtype=torch.float64), draw(kind, 0.5, 1, 3, 17)
    want = cell.run("naive", (None, keep), given)
    kept = keep.mask().expand(1, 3, -1)[0]
    given["h"] = torch.where(kept, given["h"], poison)
    got = cell.run(any_engine, (None, keep), given)
    assert not got["h_n"][~kept].isfinite().any(), "as the formula has it"
    torch.testing.assert_close(got["h_n"][kept], want["h_n"][kept])
    torch.testing.assert_close(got["y"][0][kept], want["y"][0][kept])


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf], ids=str)
@some_pairs
def test_what_is_kept_comes_through(any_engine, cell, kinds, poison, draw_both, compare) -> None:
    """In its own sample, from its step on, and forward as backward; nothing hangs."""
    given, keeps = cell.make(4, 3, 9, 17, dtype=torch.float64), draw_both(kinds, 0.5, 4, 3, 9, 17)
    mask = torch.ones(4, 3, 9, dtype=bool) if keeps[0] is None else keeps[0].mask().expand(4, 3, 9)
    unit = int(mask[1, 2].nonzero()[0])
    given["x"][1, 2, unit] = poison
    got, want = cell.run(any_engine, keeps, given), cell.run("naive", keeps, given)
    # Not the weights' gradients: there the naive product has 0 * NaN for what is dropped.
    same = [n for n in got if "weight" not in n]
    compare({n: got[n] for n in same}, {n: want[n] for n in same})
    others = got["y"].clone()
    others[1:, 2] = 0
    assert others.isfinite().all()
    assert got["dweight_ih"][:, unit].isnan().any()
    if poison is torch.nan:
        assert got["y"][1, 2].isnan().all()
        assert got["h_n"][2].isnan().all()


@some_pairs
def test_bfloat16(engine: str, cell, kinds, draw_both) -> None:
    """Against the exact result of the same bfloat16 inputs."""
    given = cell.make(6, 8, 33, 63, dtype=torch.bfloat16)
    keeps = draw_both(kinds, 0.5, 6, 8, 33, 63)
    exact = cell.run("naive", keeps, {n: t.double() for n, t in given.items()})
    for name, got in cell.run(engine, keeps, given).items():
        assert got.dtype == torch.bfloat16, name
        # Six steps feed each other their rounding (2**-9 each time, relative to the largest).
        error = (got - exact[name]).abs().max() / exact[name].abs().max()
        assert error < 8 * 2**-9, name


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_bfloat16_cells_are_kept_in_float32(engine: str, kind: str | None, draw) -> None:
    """Every gate open, c grows by 1 a step: a bfloat16 cell would stand still at 256."""
    T = 400
    keep = None if kind is None else draw(kind, 0.5, T, 1, 3)
    x, zeros = (torch.zeros(*shape, 3, dtype=torch.bfloat16) for shape in ((T, 1), (1,)))
    weight, bias = torch.zeros(12, 3, dtype=torch.bfloat16), torch.full((12,), 20.0).bfloat16()
    with ops.use(engine):
        _, _, c = ops.lstm_layer(x, None, weight, bias, weight, zeros, zeros, keep)
    torch.testing.assert_close(c.float(), torch.full((1, 3), float(T)), rtol=2**-8, atol=0)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_bfloat16_states_of_a_gru_are_kept_in_float32(engine: str, kind: str | None, draw) -> None:
    """h comes nearer to 1 by 1/404 of the rest a step: a bfloat16 one would stand still at .5."""
    T = 400
    keep = None if kind is None else draw(kind, 0.5, T, 1, 3)
    x, h = (torch.zeros(*shape, 3, dtype=torch.bfloat16) for shape in ((T, 1), (1,)))
    weight, bias = torch.zeros(9, 3).bfloat16(), torch.tensor([0.0, 6.0, 20.0]).bfloat16()
    with ops.use(engine):
        bias = bias.repeat_interleave(3)
        _, h = ops.gru_layer(x, None, weight, bias, weight, None, h, keep)
    want = 1 - torch.sigmoid(torch.tensor(6.0)) ** T
    torch.testing.assert_close(h.float(), want.expand(1, 3), rtol=2**-8, atol=0)


@pytest.mark.parametrize("cell", ["LSTM"], indirect=True)
def test_the_recurrence_alone_is_deprecated(any_engine: str, cell, draw_both, compare) -> None:
    """``ops.lstm`` still gives what it gave, for gates that are there already."""
    given = cell.make(4, 3, 9, 5, dtype=torch.float64)
    keeps = draw_both((None, "structured"), 0.5, 4, 3, 9, 5)
    want = dict(zip("yhc", cell({n: given[n] for n in cell.inputs}, keeps)))
    gates = ops.masked_linear(given["x"], None, given["weight_ih"], given["bias"])
    with pytest.warns(DeprecationWarning, match=r"ends with version 0.4"):
        got = ops.lstm(gates, given["weight_hh"], given["h"], given["c"], keeps[1])
    compare(dict(zip("yhc", got)), want)


@some_pairs
def test_no_batch(any_engine: str, cell, kinds, draw_both) -> None:
    given = cell.make(4, 0, 9, 5, dtype=torch.float64)
    got = cell.run(any_engine, draw_both(kinds, 0.5, 4, 0, 9, 5), given)
    assert got["y"].shape == (4, 0, 5)
    assert {got[n].shape for n in cell.finals} == {(0, 5)}
    for name in set(cell.inputs) - {"x", *cell.states}:
        assert torch.equal(got[f"d{name}"], torch.zeros_like(given[name])), name


def test_no_step_is_refused(any_engine: str, cell) -> None:
    """As torch's modules refuse it."""
    given = cell.make(0, 3, 9, 5)
    with pytest.raises(ValueError, match=r"^x must have at least one step, got \[0, 3, 9\]$"):
        cell({n: given[n] for n in cell.inputs}, (None, None))


def test_padding_of_sets_is_never_read(any_engine: str, cell, draw_both, compare) -> None:
    given = cell.make(4, 3, 9, 5, dtype=torch.float64)
    keeps = draw_both(("structured", "fixed"), 0.5, 4, 3, 9, 5)

    def garbage(keep: KeepSets) -> KeepSets:
        padding = torch.arange(keep.width) >= keep.count[:, None]
        return KeepSets(torch.where(padding, 2**31 - 1, keep.idx).int(), keep.count, keep.scale)

    spoilt = tuple(garbage(keep) for keep in keeps)
    compare(cell.run(any_engine, spoilt, given), cell.run("naive", keeps, given))
