"""What is in the wheel, and that it installs and works.

The compiler takes a minute for the native module, so the wheel is one built without: what users
get who have none. With OPENNMT_SD_NATIVE_WHEEL=1, as ``scripts/check_packaging.sh`` sets it, it is
one with the module, and all of this is asked of that.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WITH_NATIVE = os.environ.get("OPENNMT_SD_NATIVE_WHEEL", "0") == "1"

pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def built(folder: Path, *command: object, cwd: Path, **environment: str) -> Path:
    done = run(sys.executable, *command, cwd=cwd, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def build(folder: Path, *defines: str, **environment: str) -> Path:
    """Call what pip calls, without the seconds that pip takes; ``defines`` are CMake's."""
    settings = {f"cmake.define.{name}": "ON" for name in defines}
    code = f"from scikit_build_core.build import build_wheel as b; b({str(folder)!r}, {settings!r})"
    return built(folder, "-c", code, cwd=ROOT, **environment)


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


def native(wheel: Path) -> list[str]:
    return [name for name in names(wheel) if name.startswith("opennmt_sd/ops/cpu/_native.cpython")]


@dataclass
class Environment:
    """A bare environment that holds one wheel, and borrows the rest from the running one."""

    folder: Path

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return run(self.folder / "bin/python", *arguments, cwd=self.folder, **environment)

    def pip(self, *arguments: object) -> None:
        python = self.folder / "bin/python"
        done = run(sys.executable, "-m", "pip", "--python", python, *arguments, cwd=self.folder)
        assert done.returncode == 0, done.stdout + done.stderr

    def packages(self) -> set[str]:
        return {path.name for path in self.folder.glob("lib/python*/site-packages/*")}


def install(wheel: Path, folder: Path) -> Environment:
    environment = Environment(folder)
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    environment.pip("install", "--no-deps", "--no-index", wheel)
    # Sorts last, and its folder comes after: our package is the wheel's, torch is borrowed.
    (site_packages / "zz_borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return environment


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by pip, as users do."""
    folder = tmp_path_factory.mktemp("wheel")
    compiler = {} if WITH_NATIVE else {"CXX": "/bin/false"}
    return built(
        folder, "-m", "pip", "--disable-pip-version-check", "wheel", ROOT, "--no-build-isolation",
        "--no-deps", "--no-index", "--wheel-dir", folder, "-v", cwd=folder, **compiler,
    )  # fmt: skip


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return install(wheel, tmp_path_factory.mktemp("environment") / "venv")


def test_wheel_holds_the_whole_package_and_no_more(wheel: Path) -> None:
    package = ROOT / "opennmt_sd"
    expected = {
        path.relative_to(ROOT).as_posix()
        for folder, _, files in os.walk(package, followlinks=True)
        for path in (Path(folder, file) for file in files)
        if path.suffix not in {".cpp", ".h", ".pyc", ".so"}
    }
    assert {
        "opennmt_sd/py.typed",
        "opennmt_sd/conf/__init__.py",
        "opennmt_sd/conf/onmt/quickstart.yaml",
        "opennmt_sd/conf/lm/experiment/zaremba_medium.yaml",
        "opennmt_sd/data/tatoeba-de-en/train.de",
        "opennmt_sd/data/tatoeba-de-en/LICENSE.md",
    } <= expected
    ours = {name for name in names(wheel) if ".dist-info/" not in name}
    beside = {f"opennmt_sd_autoload.{kind}" for kind in ("pth", "py", "start")}
    beside |= {"hydra_plugins/opennmt_sd.py"}
    assert ours - set(native(wheel)) == expected | beside


def test_wheel_has_the_native_module_where_a_compiler_works(wheel: Path) -> None:
    assert len(native(wheel)) == WITH_NATIVE


WORKS = """
import sys; print(any(hasattr(f, 'loads_opennmt_sd') for f in sys.meta_path))
import importlib.resources as r, opennmt_sd, torch
print(opennmt_sd.__file__)
print((r.files('opennmt_sd.conf') / 'onmt' / 'quickstart.yaml').is_file())
lstm = opennmt_sd.StructuredLSTM(3, 4, dropout=0.5, num_layers=2)
for _ in range(3): print(*lstm(torch.ones(2, 1, 3))[0].shape)
"""
# Stock's own modules, before ours: the finder has to have seen their import.
PLUGIN = """
import onmt.model_builder; from onmt.encoders import str2enc
print('sd_brnn' in str2enc, sys.modules['opennmt_sd.onmt'].__file__)
from importlib.metadata import distribution
found = distribution('opennmt_sd').entry_points.select(group='console_scripts')
print(*(entry.name for entry in found if callable(entry.load())))
"""
COMMANDS = {
    *(f"opennmt_sd{name}" for name in ("", "_train_lm", "_train_tagger")),
    *(f"onmt_sd_{name}" for name in ("train", "translate", "server", "average_models",
                                     "release_model", "build_vocab")),
}  # fmt: skip


def test_installed_wheel_works_from_a_foreign_folder(environment: Environment) -> None:
    """Its layers, the plugin in stock OpenNMT-py, its commands; one warning where they are slow."""
    done = environment.run("-W", "ignore::FutureWarning", "-c", WORKS + PLUGIN)
    armed, place, config, *shapes, plugin, commands = done.stdout.splitlines()
    assert Path(place).is_relative_to(environment.folder)
    assert (armed, config, shapes) == ("True", "True", ["2 1 4"] * 3), done.stderr
    known, place = plugin.split()
    assert known == "True"
    assert Path(place).is_relative_to(environment.folder)
    assert set(commands.split()) == COMMANDS
    assert {path.name for path in (environment.folder / "bin").iterdir()} >= COMMANDS
    warned = done.stderr.count("opennmt_sd runs without its native CPU module")
    assert warned == (not WITH_NATIVE)


def test_installed_wheel_trains_a_language_model(environment: Environment) -> None:
    pytest.importorskip("hydra", reason="hydra-core is not installed")
    code = "import sys; from opennmt_sd.cli.train_lm import main; main()"
    size = ("model.embedding=8", "model.hidden=8", "data.eval_batch_size=100")
    options = ("debug=quick", *size, "trainer.max_updates=2", "trainer.test=false", "name=run")
    done = environment.run("-c", code, *options, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert (environment.folder / "runs" / "lm" / "run" / "best.pt").is_file()


THEIR_MAIN = """
import hydra
@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    print(cfg.get("mine"), cfg.model.hidden, cfg.optim.lr, cfg.optim.schedule.name,
          cfg.get("trainer", {}).get("epochs"), type(cfg).__name__)
main()
"""


@pytest.mark.parametrize(
    ("defaults", "override", "expected"),
    [
        # A model and an optimizer alone.
        ("[{model: zaremba_small}, {optim: adam}]", "optim.lr=7", "1 200 7 constant None"),
        # An experiment over groups of their choice.
        (
            "[{model: awd_lstm}, {optim: adam}, {data: ptb}]", "+experiment=zaremba_medium",
            "1 650 1.0 step_down 39",
        ),
        # A whole training, typed, with any experiment.
        ("[opennmt_sd_lm, _self_]", "experiment=gal_large", "1 1500 1.0 step_down 55"),
        ("[opennmt_sd_tagger, _self_]", "experiment=ma_hovy", "1 200 0.015 inverse 50"),
        # Theirs, on top of ours.
        ("[opennmt_sd_lm, _self_]", "experiment=theirs", "1 650 3.5 step_down 39"),
    ],
)  # fmt: skip
def test_another_hydra_project_uses_what_the_wheel_brings(
    environment: Environment, defaults: str, override: str, expected: str
) -> None:
    pytest.importorskip("hydra", reason="hydra-core is not installed")
    conf = environment.folder / "conf"
    (conf / "experiment").mkdir(parents=True, exist_ok=True)
    (environment.folder / "theirs.py").write_text(THEIR_MAIN)
    (conf / "config.yaml").write_text(f"defaults: {defaults}\nmine: 1\n")
    (conf / "experiment" / "theirs.yaml").write_text(
        "# @package _global_\ndefaults: [zaremba_medium]\noptim: {lr: 3.5}\n"
    )
    done = environment.run("theirs.py", override)
    assert done.stdout == f"{expected} DictConfig\n", done.stderr


def test_python_start_loads_nothing_but_the_finder(environment: Environment) -> None:
    code = "import os, site, sys; print(*sys.modules)"
    started = set(environment.run("-c", code).stdout.split())
    bare = set(environment.run("-S", "-c", code).stdout.split())  # site-packages not looked at
    assert started == bare


PICKY = """#!/bin/sh
# A compiler that builds programs, and fails on nanobind: too old, say.
case "$*" in *nanobind*) echo "error: I do not know C++17" >&2; exit 1;; esac
exec c++ "$@"
"""


@pytest.mark.parametrize(
    ("defines", "variables"),
    [
        ([], {"CXX": "/no/such/compiler"}),
        ([], {"CXXFLAGS": "-include/no/such/header.h"}),
        ([], {"CXX": "picky"}),
        (["CMAKE_DISABLE_FIND_PACKAGE_Python"], {}),
    ],
    ids=["absent", "broken by its flags", "fails on nanobind", "no Python headers"],
)
def test_build_goes_on_without_a_working_compiler(
    tmp_path: Path, defines: list[str], variables: dict[str, str]
) -> None:
    picky = tmp_path / "picky"
    picky.write_text(PICKY)
    picky.chmod(0o755)
    if variables.get("CXX") == "picky":
        variables = {"CXX": str(picky)}
    wheel = build(tmp_path, *defines, **variables)
    assert native(wheel) == []
    assert "opennmt_sd_autoload.pth" in names(wheel)


def test_it_is_uninstalled_without_a_trace(wheel: Path, tmp_path: Path) -> None:
    environment = install(wheel, tmp_path / "venv")
    assert [name for name in environment.packages() if "opennmt_sd" in name]
    environment.pip("uninstall", "--yes", "opennmt_sd")
    assert not [name for name in environment.packages() if "opennmt_sd" in name]
    done = environment.run("-c", "print('ok')")
    assert (done.stdout, done.stderr) == ("ok\n", "")
