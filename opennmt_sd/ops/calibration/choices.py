"""The choices of this process: made at first use, remembered, handed to checkpoints and back."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from opennmt_sd.compat import backward_pass, in_transform, is_compiling
from opennmt_sd.ops.calibration import cache_file
from opennmt_sd.ops.calibration.devices import DEVICES, Device
from opennmt_sd.ops.calibration.key import Key
from opennmt_sd.ops.calibration.trial import TF32, TOLERANCE, Times, Ways, check, timed

log = logging.getLogger(__name__)

SWITCH = "OPENNMT_SD_CALIBRATE"
DATA = (Tensor, torch.nn.Parameter)

_on = os.environ.get(SWITCH) != "0"
_chosen: dict[bool, dict[Key, bool]] = {True: {}, False: {}}  # while it is on, and while it is off
_given: dict[str, bool] = {}  # by a checkpoint
_one_at_a_time = threading.RLock()


class calibrate:  # noqa: N801 - it reads as a verb: calibrate(False)
    """Say whether two ways are timed at first use, for all that follows or the body of a ``with``.

    Process-wide. With ``OPENNMT_SD_CALIBRATE=0`` in the environment a process starts with it off:
    then built-in rules decide.

    Example::

        with opennmt_sd.ops.calibrate(False):
            out, _ = lstm(x)
    """

    def __init__(self, on: bool) -> None:
        self._before = _on
        _switch(on)

    def __enter__(self) -> calibrate:
        return self

    def __exit__(self, *_: Any) -> None:
        _switch(self._before)


def calibrates() -> bool:
    """Return whether two ways are timed at first use, where there is a device with a clock."""
    return _on


def measurable(x: Tensor) -> bool:
    """Return whether x is on a device where ways are timed, and is data: no fake, no trace."""
    return x.device.type in DEVICES and not is_compiling() and type(x) in DATA


def chosen(key: Key, x: Tensor, *, rule: bool, ways: Callable[[], Ways]) -> bool:
    """Return whether to compute something our way, and not the dense one.

    At first use both are run and compared; then the faster one is taken, or what the rule says
    where nothing may be timed: with the switch off, and in training by several processes, which
    must choose alike. Dense where the two do not agree or one fails, under deterministic
    algorithms, while a graph is captured, and in a backward pass while another thread decides.
    Later it is a look into a dict.

    Args:
        key: what the choice holds for.
        x: an operand, for which :func:`measurable` is true.
        rule: whether ours is taken where nothing is timed.
        ways: gives both; asked at first use alone.
    """
    device = DEVICES[x.device.type]
    deterministic = torch.are_deterministic_algorithms_enabled()
    if deterministic or in_transform() or device.captures():
        return False
    choices = _chosen[_on]
    found = choices.get(key)
    if found is not None:
        return found
    # A backward pass (a checkpointed part that runs again) waits for nobody: another thread's trial
    # may need this very thread for its own backward pass. It goes the dense way until that is over.
    if not _one_at_a_time.acquire(blocking=backward_pass() < 0):
        return False
    try:
        if key not in choices:
            choices[key] = _decided(key, device, rule, ways)
        return choices[key]
    finally:
        _one_at_a_time.release()


def in_force() -> dict[str, bool]:
    """Return what was chosen, and what a checkpoint had: plain values, for a checkpoint."""
    return {**_given, **{key.text(): ours for key, ours in _chosen[_on].items()}}


def take(choices: Any) -> None:
    """Take the choices of a checkpoint: from here on they hold, whatever would be faster. Where
    these are no choices one line says so, and what would be chosen is chosen anew.

    Args:
        choices: of :func:`in_force`; None of a checkpoint of before there were any.
    """
    if choices is None:
        return
    if not isinstance(choices, Mapping) or not all(
        isinstance(text, str) and isinstance(ours, bool) for text, ours in choices.items()
    ):
        log.warning("opennmt_sd: the checkpoint's choices by measurement are damaged: made anew")
        return
    forget()
    _given.update(choices)


def forget() -> None:
    """Forget what this process has chosen, and what a checkpoint gave."""
    _chosen[True].clear()
    _chosen[False].clear()
    _given.clear()


def _switch(on: bool) -> None:
    global _on  # noqa: PLW0603 - one switch for the process, as documented
    _on = on


def _decided(key: Key, device: Device, rule: bool, ways: Callable[[], Ways]) -> bool:
    """Decide; whatever goes wrong, the dense way is left."""
    text = key.text()
    try:
        return _weighed(key, text, device, rule, ways)
    except Exception as error:  # noqa: BLE001 - a compiler, a driver, memory: of any kind
        why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    device.clean_up()  # what the trial held is gone with the error
    log.warning("opennmt_sd: dense, since a trial of another way failed (%s): %s", why, text)
    return False


def _weighed(key: Key, text: str, device: Device, rule: bool, ways: Callable[[], Ways]) -> bool:
    known, words = _known(text, rule)
    if known is not False:
        both = ways()
        check(both, device, _tolerance(key))
        if known is None:
            times = timed(both, device)
            cache_file.add(text, times)
            known, words = times.better, described(times)
    log.info("opennmt_sd: %s: %s", words, text)
    return known


def _known(text: str, rule: bool) -> tuple[bool | None, str]:
    """Return what is chosen already, None for nothing, and in words by whom."""
    if not _on:
        return rule, f"{_taken(rule)} (not timed: switched off)"
    if text in _given:
        return _given[text], f"{_taken(_given[text])} (as in the checkpoint)"
    if _several():
        return rule, f"{_taken(rule)} (not timed: several processes)"
    before = cache_file.read().get(text)
    return (None, "") if before is None else (before.better, f"{described(before)}, as before")


def described(times: Times) -> str:
    """Return a choice in words."""
    return f"{_taken(times.better)} (ours {times.ours:.4g} ms, dense {times.dense:.4g} ms)"


def _taken(ours: bool) -> str:
    return "ours" if ours else "dense"


def _several() -> bool:
    """Return whether this is one of several processes that train together."""
    world = torch.distributed
    return world.is_available() and world.is_initialized() and world.get_world_size() > 1


def _tolerance(key: Key) -> float:
    least = TF32 if "tf32" in key.precision else 0.0
    dtypes = [key.dtype] if key.autocast is None else [key.dtype, key.autocast]
    return max(least, *(TOLERANCE[dtype] for dtype in dtypes))
