"""Names what a resumed run asks for and does not get: a checkpoint's options of the model win."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

from opennmt_sd.onmt.names import has_our_decoder
from opennmt_sd.onmt.weights import kept_text, same_gates, same_types
from opennmt_sd.seq2seq.dropout_plan import DropoutPlan
from opennmt_sd.seq2seq.dropout_schedule import Schedule
from opennmt_sd.seq2seq.options import DEFAULTS


def kept_options(model_opt: Namespace, opt: Namespace) -> list[str]:
    """Return what ``--override_opts`` would take from this run: ``"sd_time fixed (this run:
    random)"``, one text each. What it would not: :func:`~opennmt_sd.onmt.weights.kept_weights`.

    Args:
        model_opt: the model's options; of a run that resumes nothing, its own.
        opt: of this run.
    """
    types = ("encoder_type", "decoder_type") if same_types(model_opt, opt) else ()
    gates = ("context_gate",) if same_gates(model_opt, opt) else ()
    keys = [*types, *gates, "global_attention_function", *DEFAULTS]
    if opt.sd_count is None:
        keys.remove("sd_count")  # of a run with stock's types, which asks for none
    same_sets = DropoutPlan.from_opt(model_opt).staggered == DropoutPlan.from_opt(opt).staggered
    if same_sets or not (has_our_decoder(model_opt) and has_our_decoder(opt)):
        keys.remove("sd_output_sets")  # it has no meaning where there is nothing to stagger
    kept = [
        kept_text(key, model_opt, opt)
        for key in keys
        if getattr(model_opt, key) != getattr(opt, key)
    ]
    return [*kept, *_kept_rates(model_opt, opt)]


def _kept_rates(model_opt: Namespace, opt: Namespace) -> Iterator[str]:
    schedule, asked = Schedule.of(model_opt), Schedule.of(opt)
    if str(asked) != str(schedule):
        yield f"dropout {schedule} (this run: {asked})"
    if asked.attention_dropout != schedule.attention_dropout and not has_our_decoder(model_opt):
        rates = (list(of.attention_dropout) for of in (schedule, asked))
        yield "attention_dropout {} (this run: {})".format(*rates)
