"""Swap the nn.LSTMs of any model for ours, in place; and all of ours for torch's own. The weights
stay where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from opennmt_sd.dropout import DropoutPattern
from opennmt_sd.nn.cell import StructuredLSTMCell
from opennmt_sd.nn.dropout import StructuredDropout
from opennmt_sd.nn.linear import MaskedLinear
from opennmt_sd.nn.lstm import StructuredLSTM, refuse_proj_size

Module = TypeVar("Module", bound=nn.Module)


def convert(
    model: Module,
    *,
    dropout: DropoutPattern | float | None = None,
    input_dropout: DropoutPattern | float | None = None,
    recurrent_dropout: DropoutPattern | float | None = None,
) -> Module:
    """Turn every ``nn.LSTM`` in a model into a :class:`StructuredLSTM`, in place.

    The module objects stay the same ones: parameters, optimizers, hooks and other references to
    them go on working.

    Args:
        model: any module; it may be an ``nn.LSTM`` itself.
        dropout: between layers; default: the rate each ``nn.LSTM`` has, as Case III.
        input_dropout, recurrent_dropout: as in :class:`StructuredLSTM`; default none.

    Returns:
        The model.

    Raises:
        NotImplementedError: an ``nn.LSTM`` has ``proj_size`` or parametrized weights; nothing
            has been changed then.
        ValueError: a rate outside [0, 1).

    Example::

        model = torch.nn.Sequential(torch.nn.LSTM(650, 650, 2, dropout=0.5))
        convert(model, input_dropout=0.5, recurrent_dropout=0.3)
    """
    found = [m for m in model.modules() if isinstance(m, nn.LSTM)]
    found = [m for m in found if not isinstance(m, StructuredLSTM)]
    for lstm in found:
        refuse_proj_size(lstm.proj_size)
        if nn.utils.parametrize.is_parametrized(lstm):
            raise NotImplementedError(
                "an nn.LSTM with parametrized weights cannot be converted: convert the model "
                "first, then register the parametrizations"
            )
    patterns = [DropoutPattern.of(p) for p in (input_dropout, recurrent_dropout)]
    found = [m for m in found if type(m) is nn.LSTM]
    between = [DropoutPattern.of(m.dropout if dropout is None else dropout) for m in found]
    for lstm, pattern in zip(found, between):
        del lstm.__dict__["dropout"]
        lstm.__class__ = StructuredLSTM
        lstm.dropout = pattern
        lstm.input_dropout, lstm.recurrent_dropout = patterns
    return model


def revert(model: Module) -> Module:
    """Turn every module of ours in a model into torch's own, in place: as for TorchScript.

    The module objects, parameters and hooks stay the same ones.

    ======================  ==================  ========================================
    ours                    torch's             what is left of the dropout
    ======================  ==================  ========================================
    ``StructuredLSTM``      ``nn.LSTM``         the rate between layers, as ordinary one
    ``StructuredLSTMCell``  ``nn.LSTMCell``     nothing
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
            for name in [n for n in vars(module) if n.startswith("_pattern_") or n in OURS]:
                del vars(module)[name]
            if not isinstance(module, nn.LSTM):
                vars(module).pop("batch_first", None)
            module.__class__ = torchs
            for name, value in kept.items():
                setattr(module, name, value)
    return model


# Ours, torch's, and the attributes that torch's has and ours has not.
TORCHS: dict[type[nn.Module], tuple[type[nn.Module], Callable[[Any], dict[str, Any]]]] = {
    StructuredLSTM: (nn.LSTM, lambda lstm: {"dropout": lstm.dropout.p}),
    StructuredLSTMCell: (nn.LSTMCell, lambda _: {}),
    MaskedLinear: (nn.Linear, lambda _: {}),
    StructuredDropout: (nn.Dropout, lambda drop: {"p": drop.dropout.p, "inplace": False}),
}
OURS = ("generator", "exact")
