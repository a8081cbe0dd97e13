"""The chain's likelihood and its gradients, against the same by a graph of torch's ops, over
pytorch-crf's partition function."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from opennmt_sd import ops
from opennmt_sd.tagger import heads
from opennmt_sd.tagger.heads import CRFHead

SHAPES = {
    "one sentence of one word": [1],
    "of one word each": [3],
    "one sentence": [1] * 9,
    "of one length": [4] * 5,
    "of all lengths": [7] * 3 + [6, 4, 2] + [1] * 25,
}


def head(K: int, scale: float = 1.0) -> CRFHead:
    torch.manual_seed(2)
    made = CRFHead(K)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return made


def results(crf: CRFHead, rows: Tensor, tags: Tensor, sizes: Tensor) -> list[Tensor]:
    """The loss and every gradient; the loss is halved, so that a factor has to arrive."""
    given = rows.detach().to(crf.transitions.dtype).requires_grad_()
    loss = crf.nll(given, tags, sizes) / 2
    return [loss, *torch.autograd.grad(loss, [given, *crf.parameters()])]


def truth(crf: CRFHead, rows: Tensor, tags: Tensor, sizes: Tensor) -> list[Tensor]:
    with ops.use("naive"):
        return [x.float() for x in results(crf.double(), rows, tags, sizes)]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch):
    """Let the graph be refused, from a call on."""

    def refused(*_: object) -> None:
        raise AssertionError("went word by word")

    return lambda: monkeypatch.setattr(heads, "log_partition", refused)


@pytest.mark.parametrize("K", [1, 5])
@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES)
def test_loss_and_gradients(sizes, scale, K, alone) -> None:
    sizes = torch.tensor(sizes)
    R = int(sizes.sum())
    rows = torch.randn(R, K, generator=torch.Generator().manual_seed(1)) * scale
    tags = torch.randint(K, (R,), generator=torch.Generator().manual_seed(2))
    expected = truth(head(K, scale), rows, tags, sizes)
    alone()
    found = results(head(K, scale), rows, tags, sizes)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * scale)


def test_a_forbidden_move_is_never_expected(alone) -> None:
    sizes, tags = torch.tensor([2, 2, 1]), torch.tensor([0, 1, 1, 0, 1])
    crf, rows = head(3), torch.randn(5, 3)
    with torch.no_grad():
        crf.transitions[2, 0] = -1e4
    expected = truth(crf, rows, tags, sizes)
    alone()
    found = results(crf.float(), rows, tags, sizes)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert found[-1][2, 0] == 0


@pytest.mark.parametrize("apart", [300.0, 1e4])
def test_scores_that_are_hundreds_of_nats_apart_go_word_by_word(apart) -> None:
    """What a move and a word speak for is what the other speaks against."""
    sizes, tags = torch.tensor([1] * 12), torch.zeros(12, dtype=torch.long)
    crf = head(2)
    with torch.no_grad():
        crf.transitions.copy_(torch.tensor([[0.0, -apart], [-apart, 0.0]]))
    rows = torch.tensor([[0.0, -apart], [-apart, 0.0]] * 6)
    with ops.use("naive"):
        expected = results(crf, rows, tags, sizes)
    found = results(crf, rows, tags, sizes)
    assert all(bool(x.isfinite().all()) for x in found)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_no_number_is_no_number() -> None:
    rows = torch.randn(5, 3)
    rows[2, 1] = torch.nan
    loss, *_ = results(head(3), rows, torch.tensor([0, 1, 2, 0, 1]), torch.tensor([2, 2, 1]))
    assert loss.isnan()


def test_second_derivatives() -> None:
    sizes, tags = torch.tensor([2, 2, 1]), torch.tensor([0, 1, 2, 0, 1])
    crf, rows = head(3).double(), torch.randn(5, 3, dtype=torch.float64, requires_grad=True)

    def loss(x: Tensor, *_: Tensor) -> Tensor:
        return crf.nll(x, tags, sizes)

    assert torch.autograd.gradgradcheck(loss, (rows, *crf.parameters()))
    crf.requires_grad_(False)
    assert torch.autograd.gradgradcheck(loss, (rows,))


def test_in_a_transform() -> None:
    sizes, tags = torch.tensor([2, 2, 1]), torch.tensor([0, 1, 2, 0, 1])
    crf, rows = head(3), torch.randn(5, 3)
    expected = results(crf, rows, tags, sizes)[1]
    found = torch.func.grad(lambda x: crf.nll(x, tags, sizes) / 2)(rows)
    torch.testing.assert_close(found, expected)


def test_autocast_takes_no_digits(alone) -> None:
    sizes, tags = torch.tensor([2, 2, 1]), torch.tensor([0, 1, 2, 0, 1])
    crf, rows = head(3), torch.randn(5, 3)
    expected = results(crf, rows, tags, sizes)
    alone()
    with torch.autocast("cpu", torch.bfloat16):
        found = results(crf, rows, tags, sizes)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_without_gradients() -> None:
    sizes, tags = torch.tensor([2, 2, 1]), torch.tensor([0, 1, 2, 0, 1])
    crf, rows = head(3), torch.randn(5, 3)
    expected = results(crf, rows, tags, sizes)[0] * 2
    with torch.no_grad():
        found = crf.nll(rows, tags, sizes)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected.detach())
