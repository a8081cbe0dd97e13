"""What a suite is measured on: a device, a precision, and the clock that fits."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from opennmt_sd import ops
from opennmt_sd.benchmark.measure import HOST, Clock, Events, alternate


class Precision(NamedTuple):
    """How products are computed, and how far from float64 the gate lets results be.

    Args:
        dtype: of the products.
        tf32: whether float32 is rounded to 10 bits for products.
        tolerance: of the gate; None: the suite's own, for float32.
    """

    dtype: torch.dtype
    tf32: bool = False
    tolerance: float | None = None


# 10 bits, or 7, of each factor, along two layers of 35 dependent steps
PRECISIONS = {
    "float32": Precision(torch.float32),
    "tf32": Precision(torch.float32, tf32=True, tolerance=2e-2),
    "float16": Precision(torch.float16, tolerance=2e-2),
    "bfloat16": Precision(torch.bfloat16, tolerance=1e-1),
}


@dataclass(frozen=True)
class Target:
    """A device, and a precision of :data:`PRECISIONS`."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "float32"

    @property
    def gpu(self) -> bool:
        """Whether work is launched, and timed by events."""
        return self.device.type == "cuda"

    @property
    def clock(self) -> Clock:
        return Events(self.device) if self.gpu else HOST

    @property
    def dtype(self) -> torch.dtype:
        return PRECISIONS[self.precision].dtype

    @property
    def own(self) -> str:
        """The engine that runs our own work also where it would be left to torch: on a GPU there
        is none, since with nothing dropped our types are torch's."""
        return "auto" if self.gpu else "cpu"

    def tolerance(self, of_float32: float) -> float:
        """Return the gate's tolerance for a suite that allows so much in float32."""
        return PRECISIONS[self.precision].tolerance or of_float32

    def put(self, x: Any) -> Any:
        """Return a tensor or a module on the device and of the dtype."""
        return x.to(self.device, self.dtype)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context of mixed precision, as trainers have it."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def alternate(
        self, variants: Mapping[str, Callable[[], Any]], repeats: int
    ) -> dict[str, float]:
        """Give the median time of each variant: see :func:`.measure.alternate`."""
        return alternate(variants, repeats, self.clock)

    def loops(self, recurrent: bool) -> bool:
        """Return whether to time ours also where a recurrence is a loop of torch's ops: on a GPU,
        with recurrent dropout."""
        return self.gpu and recurrent

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Make the device the current one, and set whether float32 may be TF32, for a ``with``."""
        if not self.gpu:
            yield
            return
        before = tf32()
        try:
            allow_tf32(*[PRECISIONS[self.precision].tf32] * 2)
            with torch.cuda.device(self.device):
                yield
        finally:
            allow_tf32(*before)


CPU = Target()


def tf32() -> tuple[bool, bool]:
    """Return whether float32 may be rounded to TF32 in products, and in cuDNN's layers."""
    with _old_names():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def allow_tf32(products: bool, cudnn: bool) -> None:
    with _old_names():
        torch.backends.cuda.matmul.allow_tf32 = products
        torch.backends.cudnn.allow_tf32 = cudnn


@contextmanager
def _old_names() -> Iterator[None]:
    """Newer torch has other names for these, which must not be mixed with those all versions have:
    it says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def on_engine(work: Any, engine: str) -> Any:
    """Return the same work in training, of the same weights, with another ``engine``."""
    twin = copy.copy(work)
    twin.engine = engine
    return twin


def forced(work: Callable[[], Any], engine: str) -> Callable[[], Any]:
    """Return the same work on one engine."""

    def run() -> Any:
        with ops.use(engine):
            return work()

    return run
