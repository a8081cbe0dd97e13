"""Where a plan's sets are drawn: on the CPU, or as a mask on the device that will drop."""

from __future__ import annotations

import pytest
import torch

from opennmt_sd.dropout import KeepSets
from opennmt_sd.dropout.seeded import SeededMask
from opennmt_sd.seq2seq.dropout_mixin import DropoutMixin
from opennmt_sd.seq2seq.dropout_plan import DropoutPlan

CPU, META = (torch.empty(0, device=device) for device in ("cpu", "meta"))


class Half(DropoutMixin):
    def __init__(self, time: str) -> None:
        self.plan, self.training = DropoutPlan(0.5, {}, time=time), True

    @property
    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(1)


def test_a_gpu_is_sent_no_sets() -> None:
    on_cpu, on_gpu = (Half("random").draw("encoder", like, 4, 3, 9) for like in (CPU, META))
    assert isinstance(on_cpu, KeepSets)
    assert isinstance(on_gpu, SeededMask)
    assert on_gpu.__dict__["drawn"] is None  # not yet
    assert torch.equal(on_gpu.narrow(), on_cpu.mask())


@pytest.mark.parametrize("like", [CPU, META], ids=["cpu", "gpu"])
def test_what_all_steps_keep_can_be_gathered(like: torch.Tensor) -> None:
    assert isinstance(Half("fixed").draw("encoder", like, 4, 3, 9), KeepSets)
