"""The models of the published recipes: arguments for :class:`~opennmt_sd.lm.model.LanguageModel`.

How they are trained (rates, schedules, clipping) is in ``conf/experiment``.
"""

from __future__ import annotations

from typing import Any

from opennmt_sd.dropout import DropoutPattern

VARIATIONAL = {"space": "random", "time": "fixed"}  # Case II


def _zaremba(width: int, p: float, init: float) -> dict[str, Any]:
    return {
        "embedding": width, "hidden": width, "layers": 2, "nr": p, "fc": p, "init": init,
    }  # fmt: skip


def _variational(width: int, p: float, p_state: float, init: float) -> dict[str, Any]:
    outer, inner = (DropoutPattern(rate, **VARIATIONAL) for rate in (p, p_state))
    return {**_zaremba(width, p, init), "nr": outer, "fc": outer, "rh": inner, "words": inner}


_AWD = {
    "embedding": 400, "hidden": [1150, 1150, 400], "tied": True, "ar": 2.0, "tar": 1.0,
    "words": 0.1, "init": None,
}  # fmt: skip

MODELS: dict[str, dict[str, Any]] = {
    # Zaremba et al., 2014. Rates are as Case III here; the original drops as Case I.
    "zaremba_small": _zaremba(200, 0.0, 0.1),
    "zaremba_medium": _zaremba(650, 0.5, 0.05),
    "zaremba_large": _zaremba(1500, 0.65, 0.04),
    # Gal and Ghahramani, 2016: the rates of large are theirs, those of medium are scaled down.
    "variational_medium": _variational(650, 0.35, 0.2, 0.05),
    "variational_large": _variational(1500, 0.5, 0.3, 0.04),
    # Merity et al., 2018.
    "awd": {
        **_AWD,
        "input": DropoutPattern(0.4, **VARIATIONAL),
        "nr": DropoutPattern(0.25, **VARIATIONAL),
        "fc": DropoutPattern(0.4, **VARIATIONAL),
        "weight_drop": 0.5,
    },
    # The same, but structured, and with units of h dropped in place of weights.
    "awd_structured": {**_AWD, "input": 0.4, "nr": 0.25, "fc": 0.4, "rh": 0.3},
}
