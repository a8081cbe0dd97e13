"""The example of a converted model runs, learns, and reverts to the same answers."""

from __future__ import annotations

import re
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "convert_model" / "train.py"


def test_it_learns_as_it_is_and_converted(run_warm) -> None:
    done = run_warm(str(EXAMPLE), "--updates", "120", "--hidden", "64")
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^(as it is|converted|reverted) .*accuracy (\d\.\d+)", done.stdout, re.M)
    scores = {name: float(score) for name, score in found}
    assert set(scores) == {"as it is", "converted", "reverted"}, done.stdout
    assert min(scores.values()) > 0.8, done.stdout
    assert scores["reverted"] == scores["converted"]
    assert done.stdout.rstrip().endswith("LSTM")
    assert "StructuredLSTM" not in done.stdout
