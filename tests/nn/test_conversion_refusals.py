"""What cannot be converted or reverted, in which words, and that a refusal changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from opennmt_sd import (
    DropoutPattern,
    StructuredLSTM,
    convert,
    revert,
)

D, H = 4, 6


def weight_normed(module: nn.Module, name: str = "weight_hh_l0") -> nn.Module:
    return nn.utils.parametrizations.weight_norm(module, name)


FIXED = DropoutPattern(0.5, time="fixed")


LEAVE = '; or leave it as it is, with if_unsupported="leave"'


PARAMETRIZED = (
    "with parametrized weights is not supported: convert the model first, then register the "
    f"parametrizations{LEAVE}"
)


REFUSED: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "proj_size": (
        lambda: nn.LSTM(D, H, proj_size=2), {}, NotImplementedError,
        "1: an nn.LSTM with proj_size=2 is not supported: use proj_size=0 and an nn.Linear behind "
        f"the LSTM{LEAVE}",
    ),
    "parametrized weights": (
        lambda: weight_normed(nn.LSTM(D, H)), {}, NotImplementedError,
        f"1: an nn.LSTM {PARAMETRIZED}",
    ),
    "parametrized weights of a GRU": (
        lambda: weight_normed(nn.GRU(D, H)), {}, NotImplementedError,
        f"1: an nn.GRU {PARAMETRIZED}",
    ),
    "parametrized weights of a cell": (
        lambda: weight_normed(nn.GRUCell(D, H), "weight_hh"), {}, NotImplementedError,
        f"1: an nn.GRUCell {PARAMETRIZED}",
    ),
    "one set for all steps of a cell": (
        lambda: nn.LSTMCell(D, H), {"recurrent_dropout": FIXED}, ValueError,
        'recurrent_dropout with time="fixed" cannot be given to an nn.LSTMCell: a cell does not '
        'know where a sequence begins. Use time="random", or convert the other modules alone, with '
        "only=, and build a StructuredLSTMCell",
    ),
    "one set for all steps of a GRU's cell": (
        lambda: nn.GRUCell(D, H), {"input_dropout": FIXED}, ValueError,
        'input_dropout with time="fixed" cannot be given to an nn.GRUCell: a cell does not know '
        'where a sequence begins. Use time="random", or convert the other modules alone, with '
        "only=, and build a StructuredGRUCell",
    ),
    "a GRU that drops all": (
        lambda: nn.GRU(D, H, 2, dropout=1.0), {}, ValueError,
        "dropout rate 1.0 is outside [0, 1): it is the share of units dropped; 0 drops nothing",
    ),
    "an nn.LSTM that drops all": (
        lambda: nn.LSTM(D, H, 2, dropout=1.0), {}, ValueError,
        "dropout rate 1.0 is outside [0, 1): it is the share of units dropped; 0 drops nothing",
    ),
    "a rate between layers": (
        lambda: nn.LSTM(D, H), {"dropout": 1.5}, ValueError,
        "dropout rate 1.5 is outside [0, 1): it is the share of units dropped; 0 drops nothing",
    ),
    "a rate on the input": (
        lambda: nn.LSTM(D, H), {"input_dropout": -1}, ValueError,
        "dropout rate -1.0 is outside [0, 1): it is the share of units dropped; 0 drops nothing",
    ),
    "a rate on the state": (
        lambda: nn.LSTM(D, H), {"recurrent_dropout": "half"}, TypeError,
        "dropout rate must be a number in [0, 1), got 'half'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("last", "given", "error", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_changes_nothing(
    last: Any, given: dict[str, Any], error: type[Exception], text: str
) -> None:
    """Also not what stands before the module that is refused."""
    model = nn.Sequential(nn.LSTM(D, H, 2, dropout=0.3), last())
    classes = [type(m) for m in model.modules()]
    attributes = [dict(vars(m)) for m in model.modules()]
    with pytest.raises(error) as caught:
        convert(model, **given)
    assert str(caught.value) == text
    assert [type(m) for m in model.modules()] == classes
    assert [dict(vars(m)) for m in model.modules()] == attributes


def test_reverting_parametrized_weights_is_refused() -> None:
    """As converting them is: their class is one that parametrize made."""
    model = nn.Sequential(StructuredLSTM(D, H), StructuredLSTM(D, H, dropout=0.0))
    nn.utils.parametrizations.weight_norm(model[1], "weight_hh_l0")
    with pytest.raises(NotImplementedError) as error:
        revert(model)
    assert str(error.value) == (
        "a StructuredLSTM with parametrized weights cannot be reverted: remove the "
        "parametrizations first"
    )
    assert type(model[0]) is StructuredLSTM, "nothing has been changed"
