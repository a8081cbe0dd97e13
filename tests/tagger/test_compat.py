"""The private part of pytorch-crf is still what it was written for."""

from __future__ import annotations

import inspect
from importlib.metadata import version

import torch
import torchcrf

from opennmt_sd.tagger.compat import VERSION, log_partition


def test_the_partition_function_is_as_it_was_seen() -> None:
    moved = (
        f"pytorch-crf {version('pytorch-crf')} has another CRF._compute_normalizer than {VERSION}, "
        "which opennmt_sd/tagger/compat.py calls: read it, and mend log_partition"
    )
    method = getattr(torchcrf.CRF, "_compute_normalizer", None)
    assert method is not None, moved
    assert list(inspect.signature(method).parameters) == ["self", "emissions", "mask"], moved
    crf = torchcrf.CRF(1).double()  # one tag: the only sequence is all there is
    scores = torch.randn(3, 2, 1, dtype=torch.float64)
    mask = torch.tensor([[True, True], [True, True], [True, False]])
    tags = torch.zeros(3, 2, dtype=torch.long)
    found = log_partition(crf, scores, mask)
    steps = torch.tensor([2.0, 1.0], dtype=torch.float64)
    expected = (scores.squeeze(2) * mask).sum(0) + crf.start_transitions + crf.end_transitions
    torch.testing.assert_close(found, expected + steps * crf.transitions.squeeze(), msg=moved)
    assert torch.allclose(crf(scores, tags, mask, reduction="none"), torch.zeros(2).double())
