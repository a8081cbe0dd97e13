"""Suite ``onmt``: a whole update of the installed OpenNMT-py, as ``onmt_train`` makes it, with its
own types (``brnn``, ``rnn``) and with ours (``sd_brnn``, ``sd_rnn``); and the update's phases.
"""

from __future__ import annotations

from opennmt_sd.benchmark.translation import Case
from opennmt_sd.benchmark.translator import Work
from opennmt_sd.benchmark.updates import Suite

CASES = [
    Case("500 V15k p.3 NR", 500, 15_000, 0.3),
    Case("500 V15k p.5 NR", 500, 15_000, 0.5),
    Case("500 V15k p.5 NR+RH", 500, 15_000, 0.5, recurrent=True),
    Case("500 V15k p0", 500, 15_000),
    Case("1024 V10k p.5 NR+RH", 1024, 10_000, 0.5, recurrent=True),
    Case("1024 V10k p0", 1024, 10_000),
    Case("512 V10k no-input-feed p.3 NR", 512, 10_000, 0.3, input_feed=False),
    Case("512 V10k no-input-feed p0", 512, 10_000, input_feed=False),
    Case("500 V15k p.3 GRU NR", 500, 15_000, 0.3, rnn="GRU"),
    Case("500 V15k p.5 GRU NR+RH", 500, 15_000, 0.5, recurrent=True, rnn="GRU"),
    Case("500 V15k GRU p0", 500, 15_000, rnn="GRU"),
]

GPU_CASES = [
    Case("500 V15k p.5 NR IV", 500, 15_000, 0.5, fixed=True),
    Case("512 V10k no-input-feed p.3 NR IV", 512, 10_000, 0.3, input_feed=False, fixed=True),
]

SUITE = Suite("onmt", [*CASES, *GPU_CASES], Work)
run, workload, warm_up = SUITE.run, SUITE.workload, SUITE.warm_up
