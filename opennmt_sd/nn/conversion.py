"""Swap the nn.LSTMs of any model for ours, in place, and back; the weights stay where they are."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from opennmt_sd.dropout import DropoutPattern
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
        lstm.dropout = pattern  # type: ignore[assignment]
        lstm.input_dropout, lstm.recurrent_dropout = patterns
    return model


def revert(model: Module) -> Module:
    """Turn every :class:`StructuredLSTM` in a model back into an ``nn.LSTM``, in place.

    The rate between layers stays, as ordinary dropout; dropout on the input and on the state,
    which ``nn.LSTM`` does not have, is gone.

    Raises:
        NotImplementedError: a StructuredLSTM has parametrized weights; nothing has been changed.
    """
    for module in model.modules():
        if isinstance(module, StructuredLSTM) and nn.utils.parametrize.is_parametrized(module):
            raise NotImplementedError(
                "a StructuredLSTM with parametrized weights cannot be reverted: remove the "
                "parametrizations first"
            )
    for module in model.modules():
        if type(module) is StructuredLSTM:
            rate = module.dropout.p
            for name in [n for n in module.__dict__ if n.startswith("_pattern_")]:
                del module.__dict__[name]
            for name in ("generator", "exact"):
                module.__dict__.pop(name, None)
            module.__class__ = nn.LSTM  # type: ignore[assignment]
            module.dropout = rate
    return model
