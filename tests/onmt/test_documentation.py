"""docs/translation.md names what there is: options, refusals, recipes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("onmt", reason="OpenNMT-py is not installed")

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "translation.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_option_and_what_it_follows() -> None:
    from opennmt_sd.seq2seq.dropout_plan import PLACES, option, settled_count
    from opennmt_sd.seq2seq.options import DEFAULTS

    text = section("What is dropped where")
    rows = {row.split("|")[2].strip(" `"): row.split("|")[3].strip()
            for row in text.splitlines() if row.count("|") == 5}  # fmt: skip
    for name, place in PLACES.items():
        assert rows[option(name)] == ("follows `dropout`" if place.follows else
                                      "0: stock has none")  # fmt: skip
    for name in ("sd_space", "sd_time", "sd_output_sets"):
        assert f"| `{name}` | `{DEFAULTS[name]}` (default), " in text
    exact, bernoulli = (settled_count(None, space) for space in ("structured", "random"))
    row = (
        f"| `sd_count` | `{exact}` (default with `sd_space: structured`), `{bernoulli}` (all that "
    )
    assert row in text
    assert set(re.findall(r"`(sd_\w+)`", text)) == set(DEFAULTS)


def test_every_refusal() -> None:
    from opennmt_sd.onmt.refusals import REFUSALS, RNN_DECODER_REFUSALS

    text = section("What is refused")
    for refusal in (*REFUSALS, *RNN_DECODER_REFUSALS):
        assert re.search(rf"^\|[^|]*`{refusal.option}\b", text, re.MULTILINE), refusal.option


def test_every_recipe() -> None:
    text = section("Recipes")
    recipes = set(re.findall(r"`(\w+\.yaml)`", text))
    there = {path.name for path in (ROOT / "conf" / "onmt").glob("*.yaml")}
    assert recipes == there - {"quickstart_translate.yaml"}
    for script in re.findall(r"`(scripts/\w+\.py)`", text):
        assert (ROOT / script).is_file()
