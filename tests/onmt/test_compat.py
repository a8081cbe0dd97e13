"""What the plugin takes from OpenNMT-py is still what it was written for."""

from __future__ import annotations

from argparse import ArgumentParser
from importlib.metadata import version

import pytest

from opennmt_sd.onmt.compat import (
    SEEN,
    VERSION,
    add_spelling,
    never_guess,
    option_named,
    options_of,
)
from opennmt_sd.seq2seq.wrapping import fingerprint


@pytest.mark.parametrize("where", SEEN)
def test_stock_is_as_it_was_seen(plugin: None, where: str) -> None:
    moved = (
        f"OpenNMT-py {version('OpenNMT-py')} has another {where} than {VERSION}, which the plugin "
        "wraps: read it, mend the wrapper where it must be, and note the new fingerprint in SEEN"
    )
    assert fingerprint(where) == SEEN[where], moved


def test_argparse_is_as_it_was_seen() -> None:
    parser = ArgumentParser(add_help=False)
    rate = parser.add_argument("--sd_rate", type=float)
    other = parser.add_argument("--other_rate", "-other_rate", type=float)
    assert options_of(parser) == [rate, other]
    assert option_named(parser, "-other_rate") is other
    assert option_named(parser, "-sd_rate") is None
    add_spelling(parser, rate, "-sd_rate")
    assert option_named(parser, "-sd_rate") is rate
    assert parser.parse_args(["-sd_rate", "0.5"]).sd_rate == 0.5
    assert parser.parse_known_args(["--sd_r", "0.5"])[0].sd_rate == 0.5  # guessed
    never_guess(parser, {"sd_rate"})
    assert parser.parse_known_args(["--sd_r", "0.5"])[1] == ["--sd_r", "0.5"]
    assert parser.parse_args(["--sd_rate", "0.5", "--other_r", "0.1"]).other_rate == 0.1
