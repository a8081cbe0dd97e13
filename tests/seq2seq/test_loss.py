"""The loss of a toolkit whose generator's input is dropped by one set for all steps."""

from __future__ import annotations

import torch
from torch import nn

from opennmt_sd import DropoutPattern
from opennmt_sd.dropout import KeepMask, KeepSets
from opennmt_sd.ops.gathering import Shared
from opennmt_sd.seq2seq import loss


def test_both_ways_of_the_product_are_the_same(monkeypatch) -> None:
    """As a card tries them, with the same sets, on the same numbers: values and all gradients."""
    tried: list[Shared] = []
    monkeypatch.setattr(
        loss.ops, "gathers", lambda x, weight, shared: tried.append(shared()) or False
    )
    keep = DropoutPattern(0.5, time="fixed").draw(4, 3, 8, torch.Generator().manual_seed(1))
    assert isinstance(keep, KeepSets)
    output = torch.randn(3, 4, 8).requires_grad_()
    loss.mark_kept(output, keep)
    stock = nn.Module()
    stock.generator = nn.Linear(8, 11)
    with loss.generator_of_kept(stock, output):
        assert type(stock.generator) is nn.Linear, "gathering was not found faster"
    (shared,) = tried
    assert (shared.T, shared.B, shared.drops) == (4, 3, keep)
    mask = KeepMask(keep.mask().expand(1, 3, -1), keep.scale)
    wanted = [output, *stock.generator.parameters()]
    ways = []
    for kept, gathered in ((mask, False), (keep, True)):
        y = shared.run(shared.operands, kept, gathered)
        ways.append([y, *torch.autograd.grad(y.square().sum(), wanted)])
    torch.testing.assert_close(*ways)


def test_no_trial_where_steps_keep_different_units(monkeypatch) -> None:
    monkeypatch.setattr(loss.ops, "gathers", None)  # is not asked
    stock = nn.Module()
    stock.generator = nn.Linear(8, 11)
    for keep in (DropoutPattern(0.5).draw(4, 3, 8), DropoutPattern(0.5, "random").draw(4, 3, 8)):
        output = torch.randn(3, 4, 8)
        loss.mark_kept(output, keep)
        with loss.generator_of_kept(stock, output):
            assert type(stock.generator) is nn.Linear
