"""docs/eole.md names what there is: options, refusals, recipes."""

from __future__ import annotations

import re
from pathlib import Path

from opennmt_sd.seq2seq.dropout_plan import PLACES, option, settled_count
from opennmt_sd.seq2seq.options import DEFAULTS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "eole.md").read_text(encoding="utf-8")
SOURCE = (ROOT / "opennmt_sd" / "eole" / "refusals.py").read_text(encoding="utf-8")


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_option_and_what_it_follows() -> None:
    text = section("What is dropped where")
    rows = {row.split("|")[2].strip(" `"): row.split("|")[3].strip()
            for row in text.splitlines() if row.count("|") == 4}  # fmt: skip
    for name, place in PLACES.items():
        assert rows[option(name)] == ("follows `dropout`" if place.follows else
                                      "0: Eole has none")  # fmt: skip
    for name in ("sd_space", "sd_time", "sd_output_sets"):
        assert f"| `{name}` | `{DEFAULTS[name]}` (default), " in text
    exact, bernoulli = (settled_count(None, space) for space in ("structured", "random"))
    row = (
        f"| `sd_count` | `{exact}` (default with `sd_space: structured`), `{bernoulli}` (all that "
    )
    assert row in text
    assert set(re.findall(r"`(sd_\w+)`", text)) == set(DEFAULTS)


def test_every_refusal() -> None:
    """Whatever the code reads to refuse it."""
    text = section("What is refused")
    for name in ("encoder_type", "decoder_type", "hidden_size", "bridge", "layers",
                 "coverage_attn", "context_gate", "generator_function",
                 "global_attention_function", "optim", "torch_compile", "rl_algorithm",
                 "parallel_mode", "reset_optim", "update_vocab"):  # fmt: skip
        assert name in SOURCE
        assert re.search(rf"^\|[^|]*`{name}\b", text, re.MULTILINE), name


def test_every_recipe() -> None:
    recipes = set(re.findall(r"`conf/eole/(\w+\.yaml)`", section("Recipes")))
    assert recipes == {path.name for path in (ROOT / "conf" / "eole").glob("*.yaml")}
