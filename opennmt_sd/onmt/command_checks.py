"""What the stock commands are asked for is looked at before any of it is done."""

from __future__ import annotations

import functools
import sys
from argparse import Namespace
from collections.abc import Callable
from importlib import import_module
from typing import Any

from opennmt_sd.onmt.input_faults import corpus_warnings, input_faults
from opennmt_sd.onmt.names import is_ours
from opennmt_sd.onmt.options import accept_override_opts, unknown_faults
from opennmt_sd.onmt.plain_errors import show_plainly
from opennmt_sd.onmt.refusals import command_line_faults, resume_file_faults, trains_ours
from opennmt_sd.onmt.run_faults import head_faults
from opennmt_sd.onmt.translation import mend_translation
from opennmt_sd.onmt.translation_checks import command_faults, place_faults
from opennmt_sd.onmt.unknown_keys import dropped_keys
from opennmt_sd.onmt.unread_options import unread_options
from opennmt_sd.seq2seq.dropout_plan import settled_count
from opennmt_sd.seq2seq.options import DEFAULTS
from opennmt_sd.seq2seq.refusals import UnsupportedOptionsError, explain
from opennmt_sd.seq2seq.wrapping import wrap

_Function = Callable[..., Any]


def register_checks() -> None:
    """Wrap the parser of the commands, and what they call before they begin."""
    parser = import_module("onmt.utils.parse").ArgumentParser
    wrap(parser, "parse_known_args", _with_checks)
    wrap(parser, "validate_train_opts", _said_plainly)
    wrap(parser, "validate_prepare_opts", _with_files_looked_at)
    wrap(parser, "validate_model_opts", _said_plainly)
    wrap(parser, "validate_translate_opts_dynamic", _with_places_looked_at)


def _with_checks(parse: _Function) -> _Function:
    """Wrap `parse_known_args`: `onmt_train` drops what it does not know in silence."""

    @functools.wraps(parse)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> tuple[Namespace, list[str]]:
        show_plainly()
        accept_override_opts(self)
        sru: Any = import_module("onmt.modules.sru")
        require_sru = sru.check_sru_requirement
        # Parsing `rnn_type: SRU` asks for cupy at once; our refusal must come first.
        sru.check_sru_requirement = lambda abort=False: True  # noqa: ARG005 - stock's signature
        try:
            opt, unknown = parse(self, *args, **kwargs)
        finally:
            sru.check_sru_requirement = require_sru
        trains = hasattr(opt, "train_from") and all(hasattr(opt, key) for key in DEFAULTS)
        if trains:
            faults = _key_faults(opt, unknown) + command_line_faults(opt)
        elif hasattr(opt, "models") and hasattr(opt, "replace_unk"):
            mend_translation()
            faults = command_faults(opt)
        else:
            faults = []
        if faults:
            self.exit(2, f"{self.prog}: error: {explain(faults)}\n")
        if getattr(opt, "rnn_type", None) == "SRU":
            require_sru(abort=True)
        if trains and is_ours(opt):
            # So that a checkpoint goes on with what it meant, whatever a later default is.
            opt.sd_count = settled_count(opt.sd_count, opt.sd_space)
        return opt, unknown

    return wrapped


def _key_faults(opt: Namespace, unknown: list[str]) -> list[str]:
    """Judge unknown keys: a fault where a model other than the one asked for would be trained, else
    a warning of one line."""
    faults = unknown_faults(unknown)
    for key in dropped_keys(unknown):
        if key.matters and is_ours(opt):
            faults.append(str(key))
        else:
            print(f"opennmt_sd: warning: {key}", file=sys.stderr)
    return faults


def _with_files_looked_at(validate: _Function) -> _Function:
    """Wrap `validate_prepare_opts`, which comes before files are read: whether they can be.

    Not `validate_train_opts`: programs that build a model without any files call that one too.
    """

    @functools.wraps(validate)
    def wrapped(cls: Any, opt: Namespace, build_vocab_only: bool = False) -> None:
        ours = not build_vocab_only and trains_ours(opt)
        faults = input_faults(opt, builds_vocabulary=build_vocab_only, ours=ours)
        if not build_vocab_only:
            faults = (head_faults(opt) if is_ours(opt) else []) + resume_file_faults(opt) + faults
        if faults:
            raise UnsupportedOptionsError(faults)
        texts = [] if ours else corpus_warnings(opt)  # before stock fills in what is missing
        _said_plainly(validate)(cls, opt, build_vocab_only=build_vocab_only)
        texts += [] if build_vocab_only else unread_options(opt)
        for text in texts:
            import_module("onmt.utils.logging").logger.warning("opennmt_sd: %s", text)

    return wrapped


def _with_places_looked_at(validate: _Function) -> _Function:
    """Wrap `validate_translate_opts_dynamic`, which `onmt_translate` alone calls: what it reads and
    writes. (A server and a program of one's own translate lists, and name files for show.)"""

    @functools.wraps(validate)
    def wrapped(cls: Any, opt: Namespace) -> Any:
        if faults := place_faults(opt):
            raise UnsupportedOptionsError(faults)
        return validate(cls, opt)

    return wrapped


def _said_plainly(validate: _Function) -> _Function:
    """Wrap any `validate_*`: stock's own complaint is a text, not a traceback."""

    @functools.wraps(validate)
    def wrapped(cls: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return validate(cls, *args, **kwargs)
        except (AssertionError, OSError, ValueError) as error:
            if isinstance(error, UnsupportedOptionsError) or not str(error):
                raise
            raise UnsupportedOptionsError([" ".join(str(error).split())]) from error

    return wrapped
