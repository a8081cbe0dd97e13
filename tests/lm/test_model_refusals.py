"""What a language model refuses, in which words."""

from __future__ import annotations

import pytest
import torch

from opennmt_sd.lm import LanguageModel

V = 17


def build(**arguments) -> LanguageModel:
    return LanguageModel(V, **{"embedding": 8, "hidden": 8, "layers": 2, **arguments})


@pytest.mark.parametrize(
    ("cell", "other", "said"),
    [
        ("gru", "lstm", "hx of a GRU must be one tensor"),
        ("lstm", "gru", "an LSTM needs an hx of 2 tensors, got 1"),
    ],
)
def test_a_state_of_another_cell_is_refused(cell: str, other: str, said: str) -> None:
    batch = torch.randint(V, (2, 6, 4))  # words, and those that follow
    state = build(cell=other)(*batch).state
    with pytest.raises((TypeError, RuntimeError), match=said):
        build(cell=cell)(*batch, state)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"hidden": [8, 8], "layers": 3}, "hidden [8, 8] has 2 widths for 3 layers: leave `layers` "
         "out, or give one width"),
        ({"hidden": 0}, "the model needs a layer and widths of 1 or more, got embedding 8 and "
         "hidden [0, 0]"),
        ({"layers": 0}, "the model needs a layer and widths of 1 or more, got embedding 8 and "
         "hidden []"),
        ({"hidden": 9, "tied": True}, "tied weights need one width for the embedding (8) and the "
         "last layer (9)"),
        ({"nr": 1.0}, "dropout rate 1.0 is outside [0, 1): it is the share of units dropped; 0 "
         "drops nothing"),
        ({"weight_drop": 1.0}, "weight_drop 1.0 is outside [0, 1): it is the share of units "
         "dropped; 0 drops nothing"),
        ({"cell": "rnn"}, "cell 'rnn' is unknown: use one of lstm, gru"),
        ({"ar": -1.0}, "ar must be a weight of 0 or more, got -1.0"),
        ({"init": 0.0}, "init must be a bound above 0, or None, got 0.0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_refusals(arguments, said: str) -> None:
    with pytest.raises(ValueError) as error:
        build(**arguments)
    assert str(error.value) == said


def test_an_empty_vocabulary() -> None:
    with pytest.raises(ValueError) as error:
        LanguageModel(0)
    assert str(error.value) == "the vocabulary needs at least one word, got 0"
