"""Which modules of a model `convert` takes, and why it leaves the others."""

from __future__ import annotations

import torch
from torch import nn

from opennmt_sd.nn.base import Structured
from opennmt_sd.nn.cell import StructuredLSTMCell
from opennmt_sd.nn.gru import StructuredGRU
from opennmt_sd.nn.gru_cell import StructuredGRUCell
from opennmt_sd.nn.lstm import StructuredLSTM

OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.LSTM: StructuredLSTM,
    nn.GRU: StructuredGRU,
    nn.LSTMCell: StructuredLSTMCell,
    nn.GRUCell: StructuredGRUCell,
}


def is_parametrized(module: nn.Module) -> bool:
    """Return whether ``torch.nn.utils.parametrize`` has made the module's class."""
    return nn.utils.parametrize.is_parametrized(module)


def own_class(module: nn.Module) -> type[nn.Module]:
    """Return a module's class, without the one that parametrizations put before it."""
    return type(module).__mro__[1] if is_parametrized(module) else type(module)


def is_candidate(module: nn.Module) -> bool:
    """Return whether a module is torch's own, of a class that ours stand for."""
    return own_class(module) in OURS and "forward" not in vars(module)


def is_converted(module: nn.Module) -> bool:
    """Return whether a module is a recurrent one of ours."""
    return isinstance(module, Structured) and isinstance(module, nn.RNNBase | nn.RNNCellBase)


def unsupported(module: nn.Module) -> str | None:
    """Return why a candidate cannot be converted, and what to do; None where it can."""
    if proj_size := getattr(module, "proj_size", 0):
        return (
            f"with proj_size={proj_size} is not supported: use proj_size=0 and an nn.Linear behind "
            "the LSTM"
        )
    if is_parametrized(module):
        return (
            "with parametrized weights is not supported: convert the model first, then register "
            "the parametrizations"
        )
    return None


def never(module: nn.Module) -> str | None:
    """Return why a recurrent module that is no candidate stays as it is; None of all others."""
    if isinstance(module, torch.jit.ScriptModule):
        scripted = getattr(module, "original_name", "")
        known = scripted in {cls.__name__ for cls in OURS}
        return "it is TorchScript already: convert the model before" if known else None
    if not isinstance(module, nn.RNNBase | nn.RNNCellBase) or isinstance(module, Structured):
        return None
    if own_class(module) in OURS:
        return "its forward has been replaced by another: convert the model before"
    for stock in OURS:
        if isinstance(module, stock):
            return f"it is a subclass of nn.{stock.__name__}, with a forward of its own"
    return "there is structured dropout for LSTM and GRU, and not for this"


def computed_weights(module: nn.Module) -> list[str]:
    """Return the weights that are no parameters: computed before each call by what is around the
    module, as ``weight_norm`` (a hook) and fastai's ``WeightDropout`` do."""
    names = [name for group in getattr(module, "_all_weights", ()) for name in group]
    if isinstance(module, nn.RNNCellBase):
        names = ["weight_ih", "weight_hh"]
    return [name for name in names if name not in module._parameters]
