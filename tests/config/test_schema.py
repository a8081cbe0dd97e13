"""A key is said once: what the schemas allow is what the library takes, and --help shows it."""

from __future__ import annotations

import pytest

pytest.importorskip("hydra", reason="hydra-core is not installed")

from opennmt_sd.config.keys import keys
from opennmt_sd.config.lm import LMConfig
from opennmt_sd.config.tagger import TaggerRunConfig

SCHEMAS = {"lm": LMConfig, "tagger": TaggerRunConfig}


def allowed(schema: type, name: str) -> tuple[str, ...]:
    (rule,) = [key.rule for key in keys(schema) if key.name == name]
    assert rule is not None
    return tuple(rule.text.removeprefix("use one of ").split(", "))


def test_what_is_allowed_is_what_the_library_takes() -> None:
    from opennmt_sd.dropout import SPACES, TIMES
    from opennmt_sd.lm.text import LEAST, LEVELS
    from opennmt_sd.tagger.files import KINDS
    from opennmt_sd.tagger.heads import HEADS
    from opennmt_sd.tagger.model import CHARS
    from opennmt_sd.tagger.schemes import SCHEMES

    for name, values in {
        "model.dropout.nr.space": SPACES, "model.dropout.nr.time": TIMES,
        "model.chars": CHARS, "model.head": HEADS, "data.scheme": SCHEMES, "predict.format": KINDS,
    }.items():  # fmt: skip
        assert allowed(TaggerRunConfig, name) == values, name
    assert allowed(LMConfig, "data.level") == LEVELS
    (rule,) = [key.rule for key in keys(LMConfig) if key.name == "data.max_words"]
    assert [rule.holds(LEAST - 1), rule.holds(LEAST)] == [False, True]


@pytest.mark.parametrize("task", SCHEMAS)
def test_every_key_is_explained(task: str) -> None:
    unexplained = [
        key.name for key in keys(SCHEMAS[task])
        if not key.meaning and not (key.rule and key.rule.brief)
    ]  # fmt: skip
    assert unexplained == []


@pytest.mark.parametrize("task", SCHEMAS)
def test_help_shows_every_key_with_its_value_and_meaning(run_warm, task: str) -> None:
    done = run_warm("-m", f"opennmt_sd.cli.train_{task}", "--help", "optim.lr=0.125")
    shown = done.stdout.partition("== Keys: KEY=VALUE ==\n")[2].partition("\nExit codes")[0]
    assert "\n  lr: 0.125                                  # the learning rate; above 0\n" in shown
    assert "name: ${now:%Y-%m-%d}/" in shown
    names = [line.strip().partition(":")[0] for line in shown.splitlines() if line.strip()]
    inline = {"p", "space", "time", "count"}  # on the line of their place
    expected = [key.name.rpartition(".")[2] for key in keys(SCHEMAS[task])]
    assert names == [name for name in expected if name not in inline]


def test_help_needs_no_torch(run_python) -> None:
    code = (
        "import sys; sys.argv = ['train_lm', '--cfg', 'job']\n"
        "from opennmt_sd.cli.train_lm import main; main()\n"
        "print('torch' in sys.modules)"
    )
    assert run_python("-c", code).stdout.endswith("\nFalse\n")
