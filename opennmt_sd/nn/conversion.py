"""Swap the recurrent modules of any model for ours, in place; and all of ours for torch's own. The
weights stay where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from opennmt_sd.dropout import DropoutPattern
from opennmt_sd.nn.cell import StructuredLSTMCell
from opennmt_sd.nn.dropout import StructuredDropout
from opennmt_sd.nn.gru import StructuredGRU
from opennmt_sd.nn.gru_cell import StructuredGRUCell
from opennmt_sd.nn.linear import MaskedLinear
from opennmt_sd.nn.lstm import StructuredLSTM, refuse_proj_size

Module = TypeVar("Module", bound=nn.Module)

OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.LSTM: StructuredLSTM,
    nn.GRU: StructuredGRU,
    nn.LSTMCell: StructuredLSTMCell,
    nn.GRUCell: StructuredGRUCell,
}


def convert(
    model: Module,
    *,
    dropout: DropoutPattern | float | None = None,
    input_dropout: DropoutPattern | float | None = None,
    recurrent_dropout: DropoutPattern | float | None = None,
) -> Module:
    """Turn every ``nn.LSTM`` and ``nn.GRU`` in a model into ours, in place, and every cell of them.

    The module objects stay the same ones: parameters, optimizers, hooks and other references to
    them go on working.

    Args:
        model: any module; it may be an ``nn.LSTM`` itself.
        dropout: between layers; default: the rate each ``nn.LSTM`` or ``nn.GRU`` has, as Case III.
        input_dropout, recurrent_dropout: as in :class:`StructuredLSTM`; default none.

    Returns:
        The model.

    Raises:
        NotImplementedError: an ``nn.LSTM`` has ``proj_size``, or a module parametrized weights;
            nothing has been changed then.
        ValueError: a rate outside [0, 1); a cell, and ``time="fixed"``, for which it would need
            sets at each call.

    Example::

        model = torch.nn.Sequential(torch.nn.LSTM(650, 650, 2, dropout=0.5))
        convert(model, input_dropout=0.5, recurrent_dropout=0.3)
    """
    found = [m for m in model.modules() if _torchs(m) is not None]
    for module in found:
        refuse_proj_size(getattr(module, "proj_size", 0))
        if nn.utils.parametrize.is_parametrized(module):
            raise NotImplementedError(
                f"an {_torchs(module)} with parametrized weights cannot be converted: convert the "
                "model first, then register the parametrizations"
            )
    places = {"input_dropout": input_dropout, "recurrent_dropout": recurrent_dropout}
    patterns = {place: DropoutPattern.of(p) for place, p in places.items()}
    found = [m for m in found if type(m) in OURS]
    layers = [m for m in found if isinstance(m, nn.RNNBase)]
    between = [DropoutPattern.of(m.dropout if dropout is None else dropout) for m in layers]
    for module in found:
        if isinstance(module, nn.RNNCellBase):
            _refuse_fixed(module, patterns)
    for layer in layers:
        del layer.__dict__["dropout"]
    for module in found:
        module.__class__ = OURS[type(module)]
        for place, pattern in patterns.items():
            setattr(module, place, pattern)
    for layer, pattern in zip(layers, between):
        layer.dropout = pattern
    return model


def _torchs(module: nn.Module) -> str | None:
    """Return the name of torch's class that a module is of, or a subclass of, and not ours yet."""
    for torchs, ours in OURS.items():
        if isinstance(module, torchs) and not isinstance(module, ours):
            return f"nn.{torchs.__name__}"
    return None


def _refuse_fixed(cell: nn.Module, patterns: dict[str, DropoutPattern]) -> None:
    """Refuse a pattern for a cell that is called by a model which passes no sets.

    Raises:
        ValueError: a pattern has one set for all steps.
    """
    for place, pattern in patterns.items():
        if pattern.active and pattern.time == "fixed":
            raise ValueError(
                f'{place} with time="fixed" cannot be given to an {_torchs(cell)}: a cell does not '
                'know where a sequence begins. Use time="random", or convert the other modules '
                f"alone, each with convert(module), and build a {OURS[type(cell)].__name__}"
            )


def revert(model: Module) -> Module:
    """Turn every module of ours in a model into torch's own, in place: as for TorchScript.

    The module objects, parameters and hooks stay the same ones.

    ======================  ==================  ========================================
    ours                    torch's             what is left of the dropout
    ======================  ==================  ========================================
    ``StructuredLSTM``      ``nn.LSTM``         the rate between layers, as ordinary one
    ``StructuredGRU``       ``nn.GRU``          the rate between layers, as ordinary one
    ``StructuredLSTMCell``  ``nn.LSTMCell``     nothing
    ``StructuredGRUCell``   ``nn.GRUCell``      nothing
    ``MaskedLinear``        ``nn.Linear``       nothing
    ``StructuredDropout``   ``nn.Dropout``      the rate, as ordinary one
    ======================  ==================  ========================================

    In evaluation nothing changes. Subclasses stay as they are: their forward is their own.

    Returns:
        The model.

    Raises:
        NotImplementedError: a module of ours has parametrized weights; nothing has been changed.
    """
    for module in model.modules():
        for ours in TORCHS:
            if isinstance(module, ours) and nn.utils.parametrize.is_parametrized(module):
                raise NotImplementedError(
                    f"a {ours.__name__} with parametrized weights cannot be reverted: remove the "
                    "parametrizations first"
                )
    for module in model.modules():
        if type(module) in TORCHS:
            torchs, attributes = TORCHS[type(module)]
            kept = attributes(module)
            for name in [n for n in vars(module) if n.startswith("_pattern_") or n in OWN]:
                del vars(module)[name]
            if not isinstance(module, nn.RNNBase):
                vars(module).pop("batch_first", None)
            module.__class__ = torchs
            for name, value in kept.items():
                setattr(module, name, value)
    return model


# Ours, torch's, and the attributes that torch's has and ours has not.
TORCHS: dict[type[nn.Module], tuple[type[nn.Module], Callable[[Any], dict[str, Any]]]] = {
    StructuredLSTM: (nn.LSTM, lambda lstm: {"dropout": lstm.dropout.p}),
    StructuredGRU: (nn.GRU, lambda gru: {"dropout": gru.dropout.p}),
    StructuredLSTMCell: (nn.LSTMCell, lambda _: {}),
    StructuredGRUCell: (nn.GRUCell, lambda _: {}),
    MaskedLinear: (nn.Linear, lambda _: {}),
    StructuredDropout: (nn.Dropout, lambda drop: {"p": drop.dropout.p, "inplace": False}),
}
OWN = ("generator", "exact")
