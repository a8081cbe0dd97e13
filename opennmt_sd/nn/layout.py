"""Where the time axis is: every layout a module takes, brought to time first and back."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from opennmt_sd.dropout import Keep

Rows = Callable[[Tensor, "Tensor | None", int, int], Tensor]


def time_first(x: Tensor | PackedSequence, batch_first: bool, run: Rows) -> Tensor | PackedSequence:
    """Run ``run(rows, batch_sizes, T, B)`` on x brought to ``[T, B, D]`` or packed rows.

    Args:
        x: ``[T, B, D]``, ``[B, T, D]`` with ``batch_first``, ``[B, D]`` (one step), or a
            ``PackedSequence``. The result has the same layout.

    Raises:
        ValueError: any other number of axes.
    """
    if isinstance(x, PackedSequence):
        sizes = x.batch_sizes
        data = run(x.data, sizes, len(sizes), int(sizes[0]))
        return PackedSequence(data, sizes, x.sorted_indices, x.unsorted_indices)
    if x.dim() == 2:
        return run(x.unsqueeze(0), None, 1, x.shape[0]).squeeze(0)
    if x.dim() != 3:
        raise ValueError(
            "input must be [T, B, D] (time first; [B, T, D] needs batch_first=True), "
            f"[B, D] for one step, or a PackedSequence; got {list(x.shape)}"
        )
    if batch_first:
        return run(x.transpose(0, 1), None, x.shape[1], x.shape[0]).transpose(0, 1)
    return run(x, None, x.shape[0], x.shape[1])


def sorted_as(packed: PackedSequence, keep: Keep | None) -> Keep | None:
    """Return what is kept of a batch with its samples in the order of packed rows: whoever packed
    them with ``enforce_sorted=False`` knows their own order alone."""
    order = packed.sorted_indices
    # Of as many samples as there are: what does not fit is refused where it is used.
    if keep is None or order is None or keep.samples != len(order):
        return keep
    return keep.reordered(order)
