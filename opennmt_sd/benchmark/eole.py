"""Suite ``eole``: a whole update of the installed Eole, as ``eole train`` makes it, with its own
dropout and with ours; and the update's phases.
"""

from __future__ import annotations

from opennmt_sd.benchmark.eole_translator import Work
from opennmt_sd.benchmark.translation import Case
from opennmt_sd.benchmark.updates import Suite

CASES = [
    Case("500 V15k p.3 NR", 500, 15_000, 0.3),
    Case("500 V15k p.5 NR+RH", 500, 15_000, 0.5, recurrent=True),
    Case("500 V15k p0", 500, 15_000),
    Case("500 V15k no-input-feed p.3 NR", 500, 15_000, 0.3, input_feed=False),
    Case("500 V15k no-input-feed p.5 NR+RH", 500, 15_000, 0.5, recurrent=True, input_feed=False),
    Case("500 V15k no-input-feed p0", 500, 15_000, input_feed=False),
]

SUITE = Suite("eole", CASES, Work)
run, workload, warm_up = SUITE.run, SUITE.workload, SUITE.warm_up
