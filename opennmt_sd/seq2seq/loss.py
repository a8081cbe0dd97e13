"""The generator and the loss as one: the generator's input is dropped, so its products shrink.

On a GPU the loss stays the toolkit's; where all steps keep the same units (Case IV), its generator
multiplies by the columns of these alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.dropout import Keep, KeepSets
from opennmt_sd.dropout.staggered import StaggeredSets
from opennmt_sd.seq2seq.plain_linear import is_plain_linear


class ProjectedLoss(NamedTuple):
    """The summed loss of a batch, and what its statistics count: words, and words guessed right."""

    loss: Tensor
    words: int
    correct: int


def can_take_over(loss: nn.Module, stock: type[nn.Module]) -> bool:
    """Return whether a toolkit's loss, of its class ``stock``, is one that ours can compute: of a
    softmax generator, without a language model beside."""
    return (
        type(loss) is stock
        and type(loss.criterion) is nn.CrossEntropyLoss
        and loss.lm_generator is None
        and loss.lm_prior_model is None
    )


def mark_kept(output: Tensor, keep: Keep | None) -> None:
    """Note on a decoder's output ``[B, T, H]`` which units it keeps; it is scaled already."""
    output.kept = keep  # type: ignore[attr-defined]


def rows_by_set(output: Tensor, rows: Tensor) -> tuple[KeepSets | None, Tensor | None, Tensor]:
    """Return what a product of a decoder's output needs to leave out what it drops.

    Args:
        output: a decoder's, ``[B, T, H]``; :func:`mark_kept` may have told what it keeps.
        rows: which of its rows are multiplied, bool ``[T, B]``.

    Returns:
        The sets (the output is scaled already), or None where nothing is known, or masks are; the
        order, int64 ``[R]``, in which the rows of a set lie together, or None where they do; how
        many rows each set has, int64 on the CPU.
    """
    keep = getattr(output, "kept", None)
    if isinstance(keep, StaggeredSets) and isinstance(keep.sets, KeepSets):
        order, sizes = keep.by_set(rows)
        return keep.sets.rescaled(1.0), order, sizes.cpu()
    keep = keep.rescaled(1.0) if isinstance(keep, KeepSets) else None
    return keep, None, rows.sum(1).cpu()


def projected_loss(
    generator: nn.Module, output: Tensor, target: Tensor, padding: int, criterion: Any
) -> ProjectedLoss | None:
    """Return the loss without what is dropped and what is padding; one buffer of logits is held.

    Args:
        generator: the projection onto the vocabulary.
        output: a decoder's, ``[B, T, H]``; :func:`mark_kept` may have told what it keeps.
        target: words, int64 ``[B, T]``.
        padding: the word past the end of a target.
        criterion: an ``nn.CrossEntropyLoss`` that sums; its label smoothing counts.

    Returns:
        None where it cannot be computed so: a generator that is more than a linear layer; a GPU,
        which would have to be waited for.
    """
    if not ops.reads_back(output):
        return None
    alive = (target != padding).t()  # [T, B]
    if alive.shape != output.shape[1::-1] or not is_plain_linear(generator):
        return None
    rows = output.transpose(0, 1)[alive]  # [R, H], time first
    targets = target.t()[alive]  # [R]
    keep, order, sizes = rows_by_set(output, alive)
    if order is not None:
        rows, targets = rows[order], targets[order]
    loss, correct = ops.projected_nll(
        rows, keep, generator.weight, generator.bias, targets, batch_sizes=sizes,
        label_smoothing=criterion.label_smoothing,
    )  # fmt: skip
    return ProjectedLoss(loss, len(targets), int(correct))


@contextmanager
def generator_of_kept(loss: Any, output: Tensor) -> Iterator[None]:
    """Return a context that lets a toolkit's own loss make its generator's product of what all
    steps keep alone, where they keep the same and that is faster.

    Args:
        loss: the toolkit's, which calls its ``generator`` with rows ``[R, H]``.
        output: a decoder's, ``[B, T, H]``.
    """
    generator, keep = loss.generator, getattr(output, "kept", None)
    if not isinstance(keep, KeepSets) or not _gathers(generator, output, keep):
        yield
        return
    loss.generator = _OfKept(generator, keep)
    try:
        yield
    finally:
        loss.generator = generator


class _OfKept(nn.Module):
    """A linear layer on an input of which the units that are not kept are zero."""

    def __init__(self, linear: nn.Linear, keep: KeepSets) -> None:
        super().__init__()
        self.linear, self.keep = linear, keep.rescaled(1.0)  # the input is scaled already

    def forward(self, x: Tensor) -> Tensor:
        return _product((x, self.linear.weight, self.linear.bias), self.keep, True)


def _gathers(generator: nn.Module, output: Tensor, keep: KeepSets) -> bool:
    if keep.steps != 1 or not is_plain_linear(generator):
        return False
    B, T, _ = output.shape
    rows, weight = output.flatten(0, 1), generator.weight
    operands = rows, weight, generator.bias
    return ops.gathers(
        rows, weight, lambda: ops.Shared("linear", keep, T, B, weight.shape, operands, _product)
    )


def _product(operands: Any, keep: Keep, gathered: bool) -> Tensor:
    """Return the product of rows ``[R, H]``, made of what is kept or of a masked input; for the
    trial of which is faster, where gradients must be the same too."""
    x, weight, bias = operands
    if gathered:
        assert isinstance(keep, KeepSets)
        x, (weight,) = ops.gathered(x, keep, weight)
    else:
        x = x * keep.factors(x)[0]
    return F.linear(x, weight, bias)
