"""The CRF against brute force over every tag sequence, and against the library's own code."""

from __future__ import annotations

import itertools

import pytest
import torch
import torchcrf

from opennmt_sd.tagger.heads import CRFHead, SoftmaxHead

SIZES = torch.tensor([3, 3, 2, 1])  # sentences of 4, 3 and 2 words
LENGTHS = [4, 3, 2]
K = 3


@pytest.fixture
def crf() -> CRFHead:
    torch.manual_seed(2)
    head = CRFHead(K).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    return head


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(9, K, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def sentence(rows: torch.Tensor, b: int) -> torch.Tensor:
    """The rows of one sentence."""
    begins = [0, *SIZES.cumsum(0).tolist()]
    return torch.stack([rows[begins[t] + b] for t in range(LENGTHS[b])])


def path_score(crf: CRFHead, scores: torch.Tensor, path: tuple[int, ...]) -> torch.Tensor:
    total = crf.start_transitions[path[0]] + crf.end_transitions[path[-1]]
    total = total + sum(scores[t, k] for t, k in enumerate(path))
    return total + sum(crf.transitions[a, b] for a, b in zip(path, path[1:]))


def test_brute_force(crf: CRFHead, rows: torch.Tensor) -> None:
    tags = torch.tensor([0, 2, 1, 1, 2, 0, 1, 0, 2])
    loss, best = torch.zeros(()), []
    for b in range(3):
        scores = sentence(rows, b)
        paths = list(itertools.product(range(K), repeat=LENGTHS[b]))
        all_scores = torch.stack([path_score(crf, scores, path) for path in paths])
        gold = tuple(sentence(tags[:, None], b)[:, 0].tolist())
        loss = loss + all_scores.logsumexp(0) - all_scores[paths.index(gold)]
        best.append(paths[int(all_scores.argmax())])
    torch.testing.assert_close(crf.nll(rows, tags, SIZES), loss)
    decoded = crf.decode(rows, SIZES)
    assert [tuple(sentence(decoded[:, None], b)[:, 0].tolist()) for b in range(3)] == best


def test_the_librarys_own_code_agrees(rows: torch.Tensor, crf: CRFHead) -> None:
    """Loss, every gradient and the tags, with boolean masks."""
    library = torchcrf.CRF(K).double()
    library.load_state_dict(crf.state_dict())
    tags = torch.tensor([0, 2, 1, 1, 2, 0, 1, 0, 2])
    mask = torch.arange(3) < SIZES[:, None]
    padded, labels = torch.zeros(4, 3, K, dtype=torch.float64), torch.zeros(4, 3).long()
    one, two = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    padded[mask], labels[mask] = two, tags
    ours, theirs = crf.nll(one, tags, SIZES), -library(padded, labels, mask)
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(one.grad, two.grad)
    for (name, a), b in zip(crf.named_parameters(), library.parameters()):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    packed = torch.full((4, 3), -1)
    packed[mask] = crf.decode(rows, SIZES)
    assert [packed[:n, b].tolist() for b, n in enumerate(LENGTHS)] == library.decode(padded, mask)


def test_gradcheck(rows: torch.Tensor, crf: CRFHead) -> None:
    tags = torch.tensor([0, 2, 1, 1, 2, 0, 1, 0, 2])

    def loss(x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return crf.nll(x.double(), tags, SIZES)

    assert torch.autograd.gradcheck(loss, (rows.requires_grad_(), *crf.parameters()))


def test_one_word(crf: CRFHead) -> None:
    rows = torch.tensor([[1.0, 5.0, 0.0]], dtype=torch.float64)
    with torch.no_grad():
        whole = rows[0] + crf.start_transitions + crf.end_transitions
        expected = whole.logsumexp(0) - whole[2]
        assert crf.nll(rows, torch.tensor([2]), torch.tensor([1])) == pytest.approx(expected)
        assert crf.decode(rows, torch.tensor([1])).tolist() == [int(whole.argmax())]


def test_softmax_is_cross_entropy(rows: torch.Tensor) -> None:
    head = SoftmaxHead()
    tags = torch.tensor([0, 2, 1, 1, 2, 0, 1, 0, 2])
    expected = -rows.log_softmax(1)[torch.arange(9), tags].sum()
    torch.testing.assert_close(head.nll(rows, tags, SIZES), expected)
    assert torch.equal(head.decode(rows, SIZES), rows.argmax(1))


@pytest.mark.parametrize("head", [CRFHead(K), SoftmaxHead()], ids=["crf", "softmax"])
def test_the_default_device_is_not_asked(head: torch.nn.Module) -> None:
    rows, tags = torch.randn(9, K), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])
    expected = head.nll(rows, tags, SIZES), head.decode(rows, SIZES)
    with torch.device("meta"):
        found = head.nll(rows, tags, SIZES), head.decode(rows, SIZES)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
