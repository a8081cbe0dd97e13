"""Swap the recurrent modules of any model for ours, in place; and all of ours for torch's own. The
weights stay where they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from torch import nn

from opennmt_sd.dropout import DropoutPattern
from opennmt_sd.nn.base import Structured
from opennmt_sd.nn.candidates import (
    OURS,
    is_candidate,
    is_converted,
    is_parametrized,
    never,
    own_class,
    unsupported,
)
from opennmt_sd.nn.cell import StructuredLSTMCell
from opennmt_sd.nn.dropout import StructuredDropout
from opennmt_sd.nn.gru import StructuredGRU
from opennmt_sd.nn.gru_cell import StructuredGRUCell
from opennmt_sd.nn.linear import MaskedLinear
from opennmt_sd.nn.lstm import StructuredLSTM
from opennmt_sd.nn.selection import CONVERTED, Names, Only, Rate

Module = TypeVar("Module", bound=nn.Module)
Rates = Mapping[str, Rate | None] | Rate | None


def convert(
    model: Module,
    *,
    dropout: Rates = None,
    input_dropout: Rates = None,
    recurrent_dropout: Rates = None,
    exact: bool = True,
    only: Only | None = None,
    if_unsupported: Literal["refuse", "leave"] = "refuse",
) -> Module:
    """Turn every ``nn.LSTM`` and ``nn.GRU`` in a model into ours, in place, and every cell of them.

    The module objects stay the same ones: parameters, optimizers, hooks and other references to
    them go on working. :func:`conversion_report` tells what was converted, and what was left and
    why.

    Args:
        model: any module; it may be an ``nn.LSTM`` itself.
        dropout: between layers; default: the rate each ``nn.LSTM`` or ``nn.GRU`` has, as Case III.
        input_dropout, recurrent_dropout: as in :class:`StructuredLSTM`; default none.
        exact: as in :class:`StructuredLSTM`. False: packed sequences of which nothing is dropped
            run on the CPU's kernels as well, quicker and equal within rounding.
        only: which of them: names of modules, a class, or a function of a name and a module that
            returns whether to. Default all.
        if_unsupported: what to do about an ``nn.LSTM`` with ``proj_size`` and a module with
            parametrized weights: ``"refuse"`` (default), or ``"leave"`` it as it is.

    Each rate may be a pattern; and a mapping from names to them, where other modules get the
    default. A name is that of a module, as ``model.named_modules()`` gives it, or of one around it
    (``"encoder"``), or a pattern with ``*`` and ``?``; where several mean a module, the longest
    counts.

    Modules that are converted already stay as they are. A rate for all is warned of where it
    reaches none, and one between layers where none has two.

    Returns:
        The model.

    Raises:
        NotImplementedError: a module is not supported. Nothing has been changed, then or on any
            other error.
        ValueError: a rate outside [0, 1); a name of no module that can be converted; a cell, and
            ``time="fixed"``, for which it would need sets at each call.

    Example::

        model = torch.nn.Sequential(torch.nn.LSTM(650, 650, 2, dropout=0.5))
        convert(model, input_dropout=0.5, recurrent_dropout=0.3)
        convert(tagger, input_dropout={"word_rnn": 0.5}, only=["word_rnn", "decoder.*"])
    """
    names = _names(model)
    names = names.among(names.chosen(only), "it is not among those of only")
    names = names.among(_supported(names, if_unsupported), "it is not supported")
    if not names.of:
        _warn_of_lost(
            model, dropout=dropout, input_dropout=input_dropout, recurrent_dropout=recurrent_dropout
        )
    layers = names.among(
        (m for m in names.of if isinstance(m, nn.RNNBase)), "a cell has no layers to drop between"
    )
    patterns = {
        "input_dropout": names.rates("input_dropout", input_dropout),
        "recurrent_dropout": names.rates("recurrent_dropout", recurrent_dropout),
    }
    asked = layers.rates("dropout", dropout)
    own: dict[nn.Module, Any] = {layer: layer.dropout for layer in layers.of if layer not in asked}
    between = {m: DropoutPattern.of(p) for m, p in {**own, **asked}.items()}
    for cell in (m for m in names.of if m not in between):
        _refuse_fixed(cell, {place: of[cell] for place, of in patterns.items() if cell in of})
    if names.of:
        _warn_of_none_between(dropout, layers)
    for layer in between:
        del layer.__dict__["dropout"]
    for module in names.of:
        module.__class__ = OURS[type(module)]
        for place, of in patterns.items():
            setattr(module, place, of.get(module))
    for layer, pattern in between.items():
        layer.dropout = pattern  # type: ignore[assignment]
        if not exact:
            layer.exact = False  # type: ignore[assignment]
    return model


def _names(model: nn.Module) -> Names:
    """Return the names of the modules that may be converted."""
    candidates: dict[nn.Module, list[str]] = {}
    others: dict[str, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if is_candidate(module):
            candidates.setdefault(module, []).append(name)
        elif isinstance(module, Structured):
            others[name] = CONVERTED
        elif why := never(module):
            others[name] = why
    return Names(candidates, others)


def _supported(names: Names, if_unsupported: str) -> list[nn.Module]:
    """Return the modules that can be converted.

    Raises:
        NotImplementedError: one cannot, and is not to be left.
    """
    if if_unsupported not in ("refuse", "leave"):
        raise ValueError(f"if_unsupported must be 'refuse' or 'leave', got {if_unsupported!r}")
    reasons = {module: unsupported(module) for module in names.of}
    for module, why in reasons.items():
        if why and if_unsupported == "refuse":
            where = f"{names.of[module][0]}: " if names.of[module][0] else ""
            raise NotImplementedError(
                f"{where}an nn.{own_class(module).__name__} {why}; or leave it as it is, with "
                'if_unsupported="leave"'
            )
    return [module for module, why in reasons.items() if why is None]


def _warn_of_lost(model: nn.Module, **rates: Rates) -> None:
    """Warn of rates that no module gets, since there is none to convert."""
    held = [module for module in model.modules() if is_converted(module)]
    for place, given in rates.items():
        if given is None or isinstance(given, Mapping):
            continue  # a name that is none of a module is an error
        pattern = DropoutPattern.of(given)
        if not pattern.active or (held and all(_drops(m, place, pattern) for m in held)):
            continue
        remedy = (
            f"none is left to convert: set the {place} of those that are converted, or revert "
            "the model first" if held
            else "there is nothing to convert; conversion_report(model) tells why"
        )  # fmt: skip
        warnings.warn(f"{place}={given} reaches no module: {remedy}", stacklevel=3)


def _warn_of_none_between(dropout: Rates, layers: Names) -> None:
    """Warn of a rate between layers that no module has two of, as building one does: of one for
    all, or of each name's.

    Args:
        dropout: as it was given.
    """
    named = isinstance(dropout, Mapping)
    rates = dropout if isinstance(dropout, Mapping) else {"": dropout}
    meant = layers.meant(rates) if named else dict.fromkeys(layers.of, "")
    served = {name for module, name in meant.items() if module.num_layers != 1}
    for name, rate in rates.items():
        pattern = DropoutPattern.of(rate)
        if not pattern.active or name in served:
            continue
        warnings.warn(
            f"dropout={pattern.p}{f' of {name!r}' if named else ''} is between layers, and no "
            "module that gets it has two: it drops nothing; for a first layer's input use "
            "input_dropout, for an output StructuredDropout or MaskedLinear behind it",
            stacklevel=3,
        )


def _drops(module: nn.Module, place: str, pattern: DropoutPattern) -> bool:
    """Return whether a module drops by a pattern in a place, or has no such place."""
    return getattr(module, place, pattern) == pattern


def _refuse_fixed(cell: nn.Module, patterns: dict[str, DropoutPattern]) -> None:
    """Refuse a pattern for a cell that is called by a model which passes no sets.

    Raises:
        ValueError: a pattern has one set for all steps.
    """
    for place, pattern in patterns.items():
        if pattern.active and pattern.time == "fixed":
            raise ValueError(
                f'{place} with time="fixed" cannot be given to an nn.{type(cell).__name__}: a cell '
                'does not know where a sequence begins. Use time="random", or convert the other '
                "modules alone, with only=, and build a "
                f"{OURS[type(cell)].__name__}"
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
    ``nn.Linear`` and ``nn.Dropout`` take no ``PackedSequence``: hand them its ``data``.

    Returns:
        The model.

    Raises:
        NotImplementedError: a module of ours has parametrized weights; nothing has been changed.
    """
    for module in model.modules():
        for ours in TORCHS:
            if isinstance(module, ours) and is_parametrized(module):
                raise NotImplementedError(
                    f"a {ours.__name__} with parametrized weights cannot be reverted: remove the "
                    "parametrizations first"
                )
    for module in model.modules():
        if type(module) in TORCHS:
            stock, attributes = TORCHS[type(module)]
            kept = attributes(module)
            for name in [n for n in vars(module) if n.startswith("_pattern_") or n in OWN]:
                del vars(module)[name]
            if not isinstance(module, nn.RNNBase):
                vars(module).pop("batch_first", None)
            module.__class__ = stock
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
