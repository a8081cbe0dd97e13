"""First-use calibration: where a device has two ways to compute the same, both are timed there.

It is for devices that are not the CPU, where which one is faster depends on the card, the precision
and the sizes. ``torch.backends.cudnn.benchmark`` does the like for convolutions.
"""

from opennmt_sd.ops.calibration.choices import (
    calibrate,
    calibrates,
    chosen,
    described,
    in_force,
    measurable,
    take,
)
from opennmt_sd.ops.calibration.key import Key, key_of
from opennmt_sd.ops.calibration.trial import Times, Ways

__all__ = [
    "Key",
    "Times",
    "Ways",
    "calibrate",
    "calibrates",
    "chosen",
    "described",
    "in_force",
    "key_of",
    "measurable",
    "take",
]
