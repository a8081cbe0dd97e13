"""What is dropped: the pattern (space x time), the rate, and the draw.

A pattern is a rule; a draw turns it into data that every layer understands:

=====================  ==============================  ==============================
\\                      ``time="random"``               ``time="fixed"``
=====================  ==============================  ==============================
``space="random"``     Case I, ordinary dropout        Case II, variational dropout
``space="structured"`` **Case III**, the default       Case IV
=====================  ==============================  ==============================

Structured in space: the whole batch drops the same units at a step, so a matrix product needs
only the kept ones. Random in time: each step draws its own set. Kept values are scaled by
1 / (1 - p) ("inverted dropout"), and nothing happens in evaluation.

Source: Sarma et al., "Structured in Space, Randomized in Time", NeurIPS 2021, section 3.

Axis names: T time, B batch, D units; S is T for ``time="random"`` and 1 for ``time="fixed"``.
"""

from opennmt_sd.dropout.keep import Keep, KeepMask, KeepSets
from opennmt_sd.dropout.pattern import COUNTS, SPACES, TIMES, DropoutPattern, check_rate, kept_units

__all__ = [
    "COUNTS", "SPACES", "TIMES", "DropoutPattern", "Keep", "KeepMask", "KeepSets", "check_rate",
    "kept_units",
]  # fmt: skip

# What a pickle names: files of before find them, and the other way round.
for _public in (DropoutPattern, Keep, KeepMask, KeepSets):
    _public.__module__ = __name__
