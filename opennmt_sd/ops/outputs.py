"""Outputs that backward needs too, and that the caller may change in place, as with ``nn.LSTM``."""

from __future__ import annotations

from torch import Tensor

from opennmt_sd.compat import version, version_counter


class Changes:
    """Whether an output was changed in place since it was given out."""

    def __init__(self, x: Tensor) -> None:
        self._counter = version_counter(x)
        self._before = version(x)

    def __bool__(self) -> bool:
        return version(self._counter) != self._before


def shared(x: Tensor) -> tuple[Tensor, Changes | None]:
    """Return an output as ``save_for_backward`` takes it, and whether it was changed.

    torch refuses a saved tensor that has changed; so does a compiler's stand-in for one (None).
    Of what is returned here, backward asks, and makes the output again from the rest if it must.
    In inference mode nothing is counted, and nothing is saved.
    """
    counts = type(x) is Tensor and not x.is_inference()
    return (x.data, Changes(x)) if counts else (x, None)
