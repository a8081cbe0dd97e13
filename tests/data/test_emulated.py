"""scripts/emulated.py: a command whose patterns draw by another rule, or its products."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from opennmt_sd import DropoutPattern, MaskedLinear, ops
from opennmt_sd.dropout import Keep
from opennmt_sd.ops.cpu import native

LoadScript = Callable[[str], ModuleType]


def test_a_command_draws_by_the_rule(
    load_script: LoadScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulated = load_script("emulated")
    drawn: list[Keep] = []

    def train() -> None:
        assert sys.argv == ["train", "-seed", "1"]
        drawn.append(DropoutPattern(0.5, space="random").draw(3, 8, 50))
        sys.exit(3)

    commands = [SimpleNamespace(load=lambda: train)]
    monkeypatch.setattr(emulated, "entry_points", lambda group, name: commands)
    monkeypatch.setattr(sys, "argv", [])
    with pytest.raises(SystemExit) as ended:
        emulated.main(["2 groups", "train", "-seed", "1"])
    assert ended.value.code == 3
    mask = drawn[0].mask()
    assert mask.shape == (3, 8, 50)
    for rows in (mask[:, :4], mask[:, 4:]):
        assert (rows == rows[:, :1]).all()
    assert (mask[:, 0] != mask[:, 4]).any()
    after = DropoutPattern(0.5, space="random").draw(3, 8, 50).mask()
    assert (after[:, 0] != after[:, 1]).any()


def test_a_command_multiplies_in_bfloat16(
    load_script: LoadScript,
    monkeypatch: pytest.MonkeyPatch,
    matmul_precision: Callable[[str], None],
) -> None:
    if native() is None:
        pytest.skip("the native module was not built")
    emulated = load_script("emulated")
    linear, x = MaskedLinear(64, 8), torch.randn(2, 64)
    exact = linear.eval()(x)
    results = []

    def train() -> None:
        with ops.use("cpu"):
            results.append(ops.masked_linear(x[None], None, linear.weight, linear.bias))

    commands = [SimpleNamespace(load=lambda: train)]
    monkeypatch.setattr(emulated, "entry_points", lambda group, name: commands)
    monkeypatch.setattr(sys, "argv", [])
    matmul_precision("medium")
    assert emulated.main(["bfloat16", "train"]) == 0
    rounded = F.linear(x.bfloat16().float(), linear.weight.bfloat16().float(), linear.bias)
    torch.testing.assert_close(results[0][0], rounded)
    assert (results[0][0] - exact).abs().max() > 1e-4


@pytest.mark.parametrize(("given", "fault"), [
    (["3 groups", "onmt_train"], "no draw is named '3 groups': use one of Case I; Case III; "),
    (["exact", "onmt_trian"], "there is no command onmt_trian in this environment"),
])  # fmt: skip
def test_what_there_is_not(
    load_script: LoadScript, capsys: pytest.CaptureFixture[str], given: list[str], fault: str
) -> None:
    assert load_script("emulated").main(given) == 2
    assert capsys.readouterr().err.startswith(f"error: {fault}")


def test_help(load_script: LoadScript, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_script("emulated").main(["--help"]) == 0
    assert 'python scripts/emulated.py "4 groups" onmt_sd_train' in capsys.readouterr().out
    assert load_script("emulated").main([]) == 2
