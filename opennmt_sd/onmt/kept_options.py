"""Names what a resumed run asks for and does not get: a checkpoint's options of the model win."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from opennmt_sd.onmt.names import has_our_decoder
from opennmt_sd.onmt.run_faults import sizes
from opennmt_sd.seq2seq.dropout_plan import DropoutPlan
from opennmt_sd.seq2seq.dropout_schedule import Schedule
from opennmt_sd.seq2seq.options import DEFAULTS

# What --override_opts can change ...
OPTIONS = ("encoder_type", "decoder_type", "global_attention_function", *DEFAULTS)
# ... and what it cannot: with the sizes, these say which weights there are.
OF_WEIGHTS = ("rnn_type", "input_feed", "bridge", "global_attention", "context_gate")
# Of these a run is told where it sets them, to something else than their default.
WHERE_SET = {"global_attention_function", *OF_WEIGHTS}


def kept_options(model_opt: Namespace, opt: Namespace) -> list[str]:
    """Return what differs and can be had with ``--override_opts``: ``"sd_time fixed (this run:
    random)"``, one text each.

    Args:
        model_opt: the model's options; of a run that resumes nothing, its own.
        opt: of this run.
    """
    kept = _kept(OPTIONS, model_opt, opt)
    if DropoutPlan.from_opt(model_opt).staggered == DropoutPlan.from_opt(opt).staggered:
        kept.pop("sd_output_sets", None)  # nothing is staggered
    return [*kept.values(), *_kept_rates(model_opt, opt)]


def kept_weights(model_opt: Namespace, opt: Namespace) -> list[str]:
    """Return what differs and asks for other weights than the checkpoint's, likewise."""
    kept = _kept(OF_WEIGHTS, model_opt, opt)
    asked, ours, usual = sizes(opt), sizes(model_opt), sizes(_defaults())
    for key in asked:
        if asked[key] not in (ours[key], usual[key]):
            old, new = (" and ".join(map(str, dict.fromkeys(of[key]))) for of in (ours, asked))
            kept[key] = f"{key} {old} (this run: {new})"
    return [*kept.values()]


def _kept(keys: tuple[str, ...], model_opt: Namespace, opt: Namespace) -> dict[str, str]:
    usual = _defaults()
    return {
        key: f"{key} {getattr(model_opt, key)} (this run: {getattr(opt, key)})"
        for key in keys
        if getattr(opt, key) != getattr(model_opt, key)
        and not (key in WHERE_SET and getattr(opt, key) == getattr(usual, key))
    }


def _kept_rates(model_opt: Namespace, opt: Namespace) -> Iterator[str]:
    schedule, asked = Schedule.of(model_opt), Schedule.of(opt)
    if str(asked) != str(schedule):
        yield f"dropout {schedule} (this run: {asked})"
    if asked.attention_dropout != schedule.attention_dropout and not has_our_decoder(model_opt):
        rates = (list(of.attention_dropout) for of in (schedule, asked))
        yield "attention_dropout {} (this run: {})".format(*rates)


def _defaults() -> Any:
    parser = import_module("onmt.utils.parse").ArgumentParser
    return parser.defaults(import_module("onmt.opts").model_opts)
