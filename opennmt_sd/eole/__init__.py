"""The Eole plugin: what its RNN translators drop, and how that gets into the stock commands.

Importing this package imports neither eole nor torch; :func:`register` does.
"""

from __future__ import annotations

__all__ = ["register"]


def register() -> None:
    """Register the plugin with Eole. Doing it again changes nothing.

    Afterwards a training configuration knows the ``sd_*`` options, under ``model``.

    Raises:
        ModuleNotFoundError: Eole, or something it needs, is not installed.
        UnknownVersionError: another Eole than the one this plugin knows; nothing is changed.
    """
    # Late, and from a module of another name: a module `register` would hide this function.
    from opennmt_sd.eole.registration import register_plugin

    register_plugin()
