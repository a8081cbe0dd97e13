"""The commands `onmt_sd_*`, where OpenNMT-py is missing or broken."""

from __future__ import annotations

import os

import pytest

from opennmt_sd.onmt import commands

NAMES = ("train", "translate", "server", "average_models", "release_model", "build_vocab")


@pytest.mark.parametrize("name", NAMES)
def test_each_runs_stocks_main(name: str, plugin: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import import_module

    ran = []
    monkeypatch.setattr(import_module(f"onmt.bin.{name}"), "main", lambda: ran.append(name))
    monkeypatch.setenv("OPENNMT_SD_AUTOLOAD", "0")
    getattr(commands, name)()
    assert ran == [name]
    assert os.environ["OPENNMT_SD_AUTOLOAD"] == "1", "spawned children would miss the plugin"


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("onmt", "onmt_sd_train: OpenNMT-py is not installed; install it from a checkout"),
        ("onmt.bin", "onmt_sd_train: OpenNMT-py is not installed; install it from a checkout"),
        ("sacrebleu", "onmt_sd_train: 'sacrebleu', which OpenNMT-py needs, is not installed; "),
    ],
)
def test_a_missing_package_is_named(
    module: str, text: str, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setenv("OPENNMT_SD_AUTOLOAD", "0")
    monkeypatch.setattr(commands, "import_module", missing)
    with pytest.raises(SystemExit) as exit_:
        commands.train()
    assert str(exit_.value.code).startswith(text)


def test_a_fault_of_ours_is_not_called_a_missing_package(
    plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'opennmt_sd.gone'", name="opennmt_sd.gone")

    monkeypatch.setenv("OPENNMT_SD_AUTOLOAD", "0")
    monkeypatch.setattr(commands, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=r"opennmt_sd\.gone"):
        commands.train()


def test_without_onmt_the_installed_command_says_so(run_warm) -> None:
    """In a process of its own, where `import onmt` fails as if it were not there."""
    code = (
        "import sys; sys.modules['onmt'] = None; "
        "from opennmt_sd.onmt.commands import translate; translate()"
    )
    done = run_warm("-c", code)
    assert done.returncode == 1
    assert done.stderr.startswith("onmt_sd_translate: OpenNMT-py is not installed; install it")
    assert len(done.stderr.splitlines()) == 1
