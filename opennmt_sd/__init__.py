"""Structured dropout for recurrent networks: modules, ops, and a plugin for OpenNMT-py.

The names below are loaded when they are first used: importing the package alone imports neither
torch nor anything else.
"""

__version__ = "0.1.0"

_HOME = {
    "DropoutPattern": "opennmt_sd.dropout",
    "KeepMask": "opennmt_sd.dropout",
    "KeepSets": "opennmt_sd.dropout",
    "MaskedLinear": "opennmt_sd.nn",
    "StructuredDropout": "opennmt_sd.nn",
    "StructuredGRU": "opennmt_sd.nn",
    "StructuredGRUCell": "opennmt_sd.nn",
    "StructuredLSTM": "opennmt_sd.nn",
    "StructuredLSTMCell": "opennmt_sd.nn",
    "conversion_report": "opennmt_sd.nn",
    "convert": "opennmt_sd.nn",
    "revert": "opennmt_sd.nn",
}

__all__ = [
    "DropoutPattern",
    "KeepMask",
    "KeepSets",
    "MaskedLinear",
    "StructuredDropout",
    "StructuredGRU",
    "StructuredGRUCell",
    "StructuredLSTM",
    "StructuredLSTMCell",
    "__version__",
    "conversion_report",
    "convert",
    "ops",
    "revert",
]

TYPE_CHECKING = False  # type checkers take this name for True
if TYPE_CHECKING:
    from opennmt_sd import ops
    from opennmt_sd.dropout import DropoutPattern, KeepMask, KeepSets
    from opennmt_sd.nn import (
        MaskedLinear,
        StructuredDropout,
        StructuredGRU,
        StructuredGRUCell,
        StructuredLSTM,
        StructuredLSTMCell,
        conversion_report,
        convert,
        revert,
    )


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "ops":
        return import_module("opennmt_sd.ops")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value  # the next access no longer comes here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
