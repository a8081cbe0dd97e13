"""OpenNMT-py's commands with the plugin loaded, whether or not it loads by itself.

``onmt_sd_train`` is ``onmt_train``, and so on: the same options, the same output.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

INSTALL = (
    "install it from a checkout of opennmt_sd: pip install '.[onmt]' (torch 2.2), or for a "
    "current torch: pip install --no-deps -r requirements.lock"
)


def _run(command: str) -> None:
    # For the children: spawned training processes start Python anew.
    os.environ["OPENNMT_SD_AUTOLOAD"] = "1"
    from opennmt_sd.onmt import register

    try:
        register()
        module = import_module(f"onmt.bin.{command}")
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name == "opennmt_sd":
            raise
        missing = "OpenNMT-py" if name == "onmt" else f"'{name}', which OpenNMT-py needs,"
        sys.exit(f"onmt_sd_{command}: {missing} is not installed; {INSTALL}")
    if command in ("average_models", "release_model"):
        from opennmt_sd.onmt.loading import load_safely_as_command

        load_safely_as_command(module)
    module.main()


def train() -> None:
    """Run ``onmt_train``"""
    _run("train")


def translate() -> None:
    """Run ``onmt_translate``"""
    _run("translate")


def server() -> None:
    """Run ``onmt_server``"""
    _run("server")


def average_models() -> None:
    """Run ``onmt_average_models``"""
    _run("average_models")


def release_model() -> None:
    """Run ``onmt_release_model``"""
    _run("release_model")


def build_vocab() -> None:
    """Run ``onmt_build_vocab``"""
    _run("build_vocab")
