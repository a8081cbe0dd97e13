"""The private part of pytorch-crf that the tagger stands on.

Seen in pytorch-crf 0.7.2, the last release. ``tests/tagger/test_compat.py`` fails, with the name,
where it has moved.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor

from opennmt_sd.extras import extra

with extra("tagger"):
    import torchcrf  # type: ignore[import-untyped]  # it ships no types

VERSION = "0.7.2"


def log_partition(crf: torchcrf.CRF, scores: Tensor, mask: Tensor) -> Tensor:
    """Return the logarithm of the sum over all sequences of tags, ``[B]``.

    Args:
        crf: whose transitions count.
        scores: ``[T, B, K]``.
        mask: bool ``[T, B]``: which words there are.
    """
    return cast(Tensor, crf._compute_normalizer(scores, mask))
