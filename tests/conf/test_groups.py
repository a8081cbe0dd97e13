"""The Hydra groups: found by other projects, and composed as published recipes have them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="hydra-core is not installed")

ROOT = Path(__file__).parents[2]

THEIR_MAIN = """
import hydra
@hydra.main(version_base="1.3", config_path="conf", config_name="theirs")
def main(cfg):
    print(cfg.model.hidden, cfg.model.dropout.input.p, cfg.optim.name, cfg.data.path)
main()
"""


def test_another_hydra_project_uses_our_groups_behind_its_own(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    (conf / "optim").mkdir(parents=True)
    (tmp_path / "theirs.py").write_text(THEIR_MAIN)
    (conf / "theirs.yaml").write_text("defaults: [{model: awd_lstm}, {optim: adam}, {data: ptb}]\n")
    (conf / "optim" / "adam.yaml").write_text("name: their own\n")
    done = subprocess.run(
        [sys.executable, "theirs.py", "model=gal_large", "data.path=/ptb"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "1500 0.5 their own /ptb\n", done.stderr


def test_the_plugin_is_light() -> None:
    code = (
        "import sys; import hydra.core.plugins; before = set(sys.modules)\n"
        "import hydra_plugins.opennmt_sd\n"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "['hydra_plugins', 'hydra_plugins.opennmt_sd']\n", done.stderr


def test_the_roots_are_there_once() -> None:
    import importlib.util

    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl

    spec = importlib.util.spec_from_file_location("p", ROOT / "hydra_plugins" / "opennmt_sd.py")
    plugin = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plugin)

    def found(*main: str) -> list[str]:
        path = ConfigSearchPathImpl()
        for root in main:
            path.append("main", root)
        for _ in range(2):
            plugin.OpenNMTSDSearchPath().manipulate_search_path(path)
        return [element.path.removeprefix("pkg://opennmt_sd.conf.") for element in path.get_path()]

    assert found() == ["lm", "tagger", "shared"]
    assert found("theirs") == ["theirs", "lm", "tagger", "shared"]
    assert found("pkg://opennmt_sd.conf.lm") == ["lm", "shared"]
    assert found("pkg://opennmt_sd.conf.tagger") == ["tagger", "shared"]
    assert found("pkg://opennmt_sd.conf.benchmark") == ["benchmark"]


def test_no_two_roots_hold_one_name() -> None:
    held = Counter(
        path.relative_to(ROOT / "conf" / root)
        for root in ("lm", "tagger", "shared")
        for path in (ROOT / "conf" / root).rglob("*.yaml")
    )
    assert len(held) > 40
    assert [name for name, count in held.items() if count > 1] == []


# experiment: widths, init, rates of input, nr, rh, fc, case, learning rate, clip, unroll, schedule
RECIPES = {
    "zaremba_small": (200, 0.1, 0, 0, 0, 0, "structured", 1, 5, 20, (4, 2), 13),
    "zaremba_medium": (650, 0.05, 0.5, 0.5, 0, 0.5, "structured", 1, 5, 35, (6, 1.2), 39),
    "zaremba_large": (1500, 0.04, 0.65, 0.65, 0, 0.65, "structured", 1, 10, 35, (14, 1.15), 55),
    "gal_medium": (650, 0.05, 0.35, 0.35, 0.2, 0.35, "random", 1, 5, 35, (6, 1.2), 39),
    "gal_large": (1500, 0.04, 0.5, 0.5, 0.3, 0.5, "random", 1, 10, 35, (14, 1.15), 55),
    "awd_lstm": ([1150, 1150, 400], None, 0.4, 0.25, 0, 0.4, "random", 30, 0.25, 70, None, 500),
    "awd_lstm_rh": (
        [1150, 1150, 400], None, 0.4, 0.25, 0.3, 0.4, "structured", 30, 0.25, 70, None, 500,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_experiments_are_the_published_recipes(name: str) -> None:
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from opennmt_sd.config import lm as schema

    schema.register()
    GlobalHydra.instance().clear()
    with initialize_config_module("opennmt_sd.conf.lm", version_base="1.3"):
        cfg = compose("train_lm", [f"experiment={name}"])
    model, optim = cfg.model, cfg.optim
    step_down = optim.schedule.name == "step_down"
    assert (
        OmegaConf.to_container(model)["hidden"], model.init,
        *(model.dropout[place].p for place in ("input", "nr", "rh", "fc")),
        model.dropout.nr.space, optim.lr, optim.clip, cfg.data.unroll,
        (optim.schedule.constant_epochs, optim.schedule.factor) if step_down else None,
        cfg.trainer.epochs,
    ) == RECIPES[name]  # fmt: skip
    assert cfg.data.batch_size == 20
    awd = name.startswith("awd")
    assert model.embedding == (400 if awd else model.hidden)
    assert (model.tied, cfg.data.random_unroll, optim.name == "nt_asgd") == (awd, awd, awd)
    assert optim.reduction == ("mean" if awd else "sum_over_time")
    assert model.dropout.weight == (0.5 if name == "awd_lstm" else 0)
