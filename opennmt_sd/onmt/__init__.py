"""The OpenNMT-py plugin: encoder, decoder, options, and how they get into the stock commands.

Importing this package imports neither onmt nor torch; :func:`register` does.
"""

from __future__ import annotations

__all__ = ["register"]


def register() -> None:
    """Register the plugin with OpenNMT-py. Doing it again changes nothing.

    Afterwards ``encoder_type`` knows ``sd_rnn`` and ``sd_brnn``, ``decoder_type`` knows
    ``sd_rnn``, and training knows the ``sd_*`` options.

    Raises:
        ModuleNotFoundError: OpenNMT-py, or something it needs, is not installed.
    """
    # Late, and from a module of another name: a module `register` would hide this function.
    from opennmt_sd.onmt.registration import register_plugin

    register_plugin()
