"""The autoload: what it does to `import onmt`, and what it must never do to it."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

import opennmt_sd._autoload

PTH = Path(__file__).parents[1] / "autoload" / "opennmt_sd_autoload.pth"

# A stand-in for the plugin, so that these tests see the loading and nothing else.
STUB = """
import sys, types
from opennmt_sd import _autoload
calls = []
def register():
    calls.append("registered")
for toolkit in ("onmt", "eole"):
    sys.modules[f"opennmt_sd.{toolkit}"] = types.SimpleNamespace(register=register)
_autoload.install()
"""


@pytest.fixture
def run_stub(tmp_path: Path, run_python):
    """Run code after STUB, beside an onmt that says when its model_builder is executed."""
    onmt = tmp_path / "onmt"
    onmt.mkdir()
    (onmt / "__init__.py").write_text("")
    (onmt / "model_builder.py").write_text("print('executed')\nbuild = 'stock'\n")
    eole = tmp_path / "eole"
    eole.mkdir()
    (eole / "__init__.py").write_text("")
    (eole / "train_single.py").write_text("print('executed')\n")

    def run(
        code: str, *options: str, stub: str = STUB, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "script.py"
        script.write_text(stub + code)
        return run_python(*options, str(script), **{"OPENNMT_SD_AUTOLOAD": "1", **environment})

    return run


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_registers_after_the_module_has_run(run_stub) -> None:
    code = "import onmt; print(calls)\nimport onmt.model_builder as m; print(m.build, calls)"
    assert lines(run_stub(code)) == ["[]", "executed", "stock ['registered']"]


def test_registers_with_eole_too(run_stub) -> None:
    code = "import eole; print(calls)\nimport eole.train_single; print(calls)"
    assert lines(run_stub(code)) == ["[]", "executed", "['registered']"]
    off = run_stub("import eole.train_single; print(calls)", OPENNMT_SD_AUTOLOAD="0")
    assert lines(off) == ["executed", "[]"]


def test_a_fault_of_ours_is_one_warning_with_eole_too(run_stub) -> None:
    done = run_stub("import eole.train_single; print('on')", stub=BROKEN)
    assert (done.returncode, done.stdout) == (0, "executed\non\n"), done.stderr
    assert (
        "opennmt_sd could not load its plugin into Eole (KeyError: 'no such encoder'). Eole goes "
        "on without it: the sd_* options are not available. OPENNMT_SD_AUTOLOAD=0 turns"
    ) in done.stderr


def test_switch_turns_it_off(run_stub) -> None:
    code = (
        "import onmt.model_builder\n"
        "print(calls, [f for f in sys.meta_path if type(f).__module__ == 'opennmt_sd._autoload'])"
    )
    assert lines(run_stub(code, OPENNMT_SD_AUTOLOAD="0")) == ["executed", "[] []"]


def test_installing_twice_is_installing_once(run_stub) -> None:
    code = (
        "_autoload.install()\n"
        "print(sum(type(f).__module__ == 'opennmt_sd._autoload' for f in sys.meta_path))\n"
        "import onmt.model_builder; print(calls)"
    )
    assert lines(run_stub(code)) == ["1", "executed", "['registered']"]


def test_looking_for_the_spec_neither_registers_nor_disarms(run_stub) -> None:
    code = (
        "from importlib.util import find_spec\n"
        "print(find_spec('onmt.model_builder').origin[-16:], calls)\n"
        "import onmt.model_builder; print(calls)"
    )
    assert lines(run_stub(code)) == ["model_builder.py []", "executed", "['registered']"]


def test_the_module_looks_as_if_it_had_been_loaded_without_us(run_stub) -> None:
    code = (
        "import inspect, onmt.model_builder as m\n"
        "print(type(m.__loader__).__name__, type(m.__spec__.loader).__name__)\n"
        "print(m.__spec__.cached is not None, inspect.getsource(m).startswith('print'))"
    )
    assert lines(run_stub(code))[1:] == ["SourceFileLoader SourceFileLoader", "True True"]


def test_a_reload_registers_again(run_stub) -> None:
    code = (
        "import importlib, onmt.model_builder as m\n"
        "m.build = 'wrapped'; importlib.reload(m); print(m.build, calls)"
    )
    assert lines(run_stub(code)) == ["executed", "executed", "stock ['registered', 'registered']"]


def test_it_can_be_run_as_a_script(run_stub) -> None:
    code = "import runpy; print(runpy.run_module('onmt.model_builder')['build'], calls)"
    assert lines(run_stub(code)) == ["executed", "stock []"]


def test_threads_see_the_module_registered(run_stub) -> None:
    code = (
        "import importlib, threading\n"
        "seen = []\n"
        "def load():\n"
        "    importlib.import_module('onmt.model_builder'); seen.append(len(calls))\n"
        "threads = [threading.Thread(target=load) for _ in range(8)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]; print(seen)"
    )
    assert lines(run_stub(code)) == ["executed", str([1] * 8)]


def test_without_onmt_nothing_changes(run_stub, tmp_path: Path) -> None:
    (tmp_path / "onmt" / "model_builder.py").unlink()
    code = "try: import onmt.model_builder\nexcept ModuleNotFoundError as e: print(e, calls)"
    assert lines(run_stub(code)) == ["No module named 'onmt.model_builder' []"]


def test_a_fault_in_onmt_stays_its_own(run_stub, tmp_path: Path) -> None:
    (tmp_path / "onmt" / "model_builder.py").write_text("import no_such_thing")
    code = "try: import onmt.model_builder\nexcept ModuleNotFoundError as e: print(e, calls)"
    assert lines(run_stub(code)) == ["No module named 'no_such_thing' []"]


BROKEN = STUB.replace('calls.append("registered")', 'raise KeyError("no such encoder")')


@pytest.mark.parametrize("options", [(), ("-W", "error")], ids=["default", "warnings are errors"])
def test_a_fault_of_ours_is_one_warning(run_stub, options: tuple[str, ...]) -> None:
    code = "import onmt.model_builder as m; import onmt.model_builder; print(m.build)"
    done = run_stub(code, *options, stub=BROKEN)
    assert (done.returncode, done.stdout) == (0, "executed\nstock\n"), done.stderr
    assert done.stderr.count("opennmt_sd could not load its plugin into OpenNMT-py") == 1
    assert "(KeyError: 'no such encoder')" in done.stderr
    assert "sd_rnn and sd_brnn are not available. OPENNMT_SD_AUTOLOAD=0 turns" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def start_with_pth(run_python, tmp_path: Path):
    """Start Python as site-packages would: run the .pth that lies beside a copy of the loader."""
    place = tmp_path / "site"
    place.mkdir()
    shutil.copy(PTH, place)
    shutil.copy(opennmt_sd._autoload.__file__, place / "opennmt_sd_autoload.py")

    def start(code: str = "print('ok')", **env: str) -> subprocess.CompletedProcess[str]:
        run = f"import site, sys; site.addpackage({str(place)!r}, {PTH.name!r}, set()); {code}"
        return run_python("-S", "-c", run, **env)

    start.place = place
    return start


ARMED = "print(*(type(f).__module__ for f in sys.meta_path if hasattr(f, 'loads_opennmt_sd')))"


def test_the_loader_runs_from_its_own_path(start_with_pth, tmp_path: Path) -> None:
    """Whatever somebody has on the path under the package's name, or the loader's."""
    for name in ("opennmt_sd", "opennmt_sd_autoload", "_autoload"):
        (tmp_path / f"{name}.py").write_text("print('imported at every start')")
    done = start_with_pth(ARMED, PYTHONPATH=str(tmp_path))
    assert (done.stdout, done.stderr) == ("opennmt_sd._autoload\n", "")


def test_the_installed_loader_runs_from_its_own_path(run_python, tmp_path: Path) -> None:
    (tmp_path / "opennmt_sd.py").write_text("print('imported at every start')")
    done = run_python("-c", f"import sys; {ARMED}", PYTHONPATH=str(tmp_path))
    assert (done.stdout, done.stderr) == ("opennmt_sd._autoload\n", ""), INSTALLED


def test_a_start_imports_nothing(start_with_pth) -> None:
    code = "print([name for name in sys.modules if 'opennmt' in name or name == 'importlib.util'])"
    done = start_with_pth(code)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_python_starts_silently_without_the_loader(start_with_pth) -> None:
    (start_with_pth.place / "opennmt_sd_autoload.py").unlink()
    done = start_with_pth()
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_python_starts_with_one_line_if_the_loader_is_damaged(start_with_pth) -> None:
    (start_with_pth.place / "opennmt_sd_autoload.py").write_text("1/0")
    done = start_with_pth()
    assert (done.returncode, done.stdout) == (0, "ok\n")
    assert done.stderr == (
        "opennmt_sd cannot be loaded (ZeroDivisionError: division by zero): "
        "reinstall it, or pip uninstall opennmt_sd\n"
    )


def test_the_warning_names_a_file_that_hides_the_package(
    run_stub, start_with_pth, tmp_path: Path
) -> None:
    mine = tmp_path / "opennmt_sd.py"
    mine.write_text("")
    done = start_with_pth(
        "import onmt.model_builder as m; print(m.build)", PYTHONPATH=str(tmp_path)
    )
    assert (done.returncode, done.stdout) == (0, "executed\nstock\n"), done.stderr
    assert f"{mine} hides the package: rename that file. OPENNMT_SD_AUTOLOAD=0" in done.stderr


def test_the_start_file_names_the_same_function(start_with_pth) -> None:
    module, name = PTH.with_suffix(".start").read_text().strip().split(":")
    assert (module, name) == (PTH.stem, opennmt_sd._autoload.install.__name__)


def test_what_a_new_torch_warns_of_is_silent(run_stub, tmp_path: Path) -> None:
    warn = "import warnings; warnings.warn('old', FutureWarning)\n"
    (tmp_path / "onmt" / "model_builder.py").write_text(warn)
    assert lines(run_stub("import onmt.model_builder; print(calls)")) == ["['registered']"]
    off = run_stub("import onmt.model_builder; print(calls)", OPENNMT_SD_AUTOLOAD="0")
    assert "FutureWarning: old" in off.stderr


INSTALLED = "the package is not installed in this environment: run `make setup` first"
CHILD = """
import multiprocessing, sys

def known():
    import onmt.model_builder
    from onmt.encoders import str2enc
    return "sd_brnn" in str2enc

if __name__ == "__main__":
    print("onmt" in sys.modules)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(known))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("switch", "known"), [("1", "True"), ("0", "False")])
def test_installed_plugin_in_a_spawned_child(
    run_python, tmp_path: Path, switch: str, known: str
) -> None:
    """The real thing: nothing but the installed .pth, stock onmt and a fresh process."""
    (tmp_path / "child.py").write_text(CHILD)
    done = run_python(str(tmp_path / "child.py"), OPENNMT_SD_AUTOLOAD=switch)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["False", known], INSTALLED + done.stderr


def test_installed_pth_sorts_after_that_of_an_editable_install() -> None:
    names = {path.name for path in Path(sysconfig.get_paths()["purelib"]).glob("*.pth")}
    assert PTH.name in names, INSTALLED
    assert all(name < PTH.name for name in names if name.startswith("_editable_"))
