"""The plugin's options, flat as OpenNMT-py's are, and what can be wrong with them."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from opennmt_sd.onmt.compat import add_spelling, never_guess, option_named
from opennmt_sd.onmt.names import (
    DECODERS,
    ENCODERS,
    has_our_decoder,
    has_our_encoder,
    is_ours,
)
from opennmt_sd.seq2seq.dropout_plan import PLACES, option
from opennmt_sd.seq2seq.options import (
    CHOICES,
    DEFAULTS,
    PRECISIONS,
    looks_like_ours,
    nearest,
    unknown_key_faults,
    value_faults,
)


def add_options(parser: Any) -> None:
    """Add the ``sd_*`` options to an OpenNMT-py parser, as a group of their own."""
    group = parser.add_argument_group(
        "Structured dropout (opennmt_sd)",
        "For -encoder_type sd_rnn or sd_brnn and -decoder_type sd_rnn.",
    )
    for name, text in (
        ("sd_space", "structured: the whole batch drops the same units, so that matrix "
         "products shrink (at the decoder's output see sd_output_sets); random: every sample "
         "drops its own."),
        ("sd_time", "random: a new set at each time step; fixed: one set for a sequence."),
        ("sd_count", "exact: as many units in every set, which makes the gradient less noisy (the "
         "default, and only, with sd_space structured); bernoulli: each unit by itself."),
        ("sd_output_sets", "staggered: a set of the decoder's output serves rows of many steps, "
         "which makes the gradient much less noisy; by_step: all rows of one step (for sd_space "
         "structured with sd_time random)."),
    ):  # fmt: skip
        # Checked in `option_faults`, not by `choices`: all faults are shown at once.
        metavar = f"{{{','.join(CHOICES[name])}}}"
        group.add(
            f"--{name}", f"-{name}", type=str, default=DEFAULTS[name], metavar=metavar, help=text
        )
    for name, place in PLACES.items():
        rule = "Where it is not set, it follows -dropout." if place.follows else ""
        group.add(
            f"--{option(name)}",
            f"-{option(name)}",
            type=float,
            default=DEFAULTS[option(name)],
            metavar="RATE",
            help=f"Dropout rate, in [0, 1), of {place.what}. {rule}".strip(),
        )
    group.add(
        "--sd_matmul_precision",
        "-sd_matmul_precision",
        type=str,
        default=DEFAULTS["sd_matmul_precision"],
        metavar=f"{{{','.join(PRECISIONS)}}}",
        help="How float32 is multiplied, in all of torch: medium in bfloat16 on a CPU where that "
        "is faster (AVX512_BF16 of AMD), high and medium in TF32 on a GPU. Where it is not set, as "
        "in the checkpoint that goes on, or as torch has it.",
    )
    never_guess(parser, DEFAULTS)  # `sd_rec` in a YAML file is a fault to show


def accept_override_opts(parser: Any) -> None:
    """Let `-override_opts` count: stock knows `--override_opts` and `-override-opts`, and drops
    the one spelling that all its other options have in silence."""
    known = option_named(parser, "--override_opts")
    if known is not None and option_named(parser, "-override_opts") is None:
        add_spelling(parser, known, "-override_opts")


def unknown_faults(unknown: list[str]) -> list[str]:
    """Name what the parser did not know, where it looks like one of ours.

    Args:
        unknown: the arguments that ``parse_known_args`` left over. A YAML file's unknown keys
            are among them, as ``--key=value``.
    """
    keys = [word.lstrip("-").partition("=")[0] for word in unknown if word.startswith("-")]
    return unknown_key_faults(key for key in keys if looks_like_ours(key))


def option_faults(opt: Namespace) -> list[str]:
    """Say what is wrong with the values of a model's options, one text each."""
    faults = []
    for key, known in (("encoder_type", ENCODERS), ("decoder_type", DECODERS)):
        name = getattr(opt, key, None) or ""
        if looks_like_ours(name) and name not in known:
            faults.append(f"{key} {name} is unknown: did you mean {nearest(name, known)}?")
    dropout = getattr(opt, "dropout", 0.0) if is_ours(opt) else []
    schedule = dropout if isinstance(dropout, list) else [dropout]
    return faults + value_faults(vars(opt), schedule)


def ignored_faults(opt: Namespace) -> list[str]:
    """Name options of ours that were set, where the model has no part that reads them."""
    sides = {
        side
        for side, is_ours in (("encoder", has_our_encoder(opt)), ("decoder", has_our_decoder(opt)))
        if is_ours
    }
    readers = {
        f"sd_{choice}": {"encoder", "decoder"}
        for choice in ("space", "time", "count", "matmul_precision")
    }
    readers["sd_output_sets"] = {"decoder"}
    readers.update({option(name): set(place.sides) for name, place in PLACES.items()})
    # What stock's dropout is; a configuration that an older version saved says so with any type.
    unasked = {key: {default} for key, default in DEFAULTS.items()}
    unasked["sd_count"].add("bernoulli")
    faults = []
    for key, default in DEFAULTS.items():
        if getattr(opt, key, default) not in unasked[key] and not readers[key] & sides:
            types = {
                "encoder": "encoder_type: sd_brnn or sd_rnn",
                "decoder": "decoder_type: sd_rnn",
            }
            remedy = " or ".join(types[side] for side in ("encoder", "decoder")
                                 if side in readers[key])  # fmt: skip
            faults.append(
                f"{key} {getattr(opt, key)} would be ignored with encoder_type "
                f"{opt.encoder_type} and decoder_type {opt.decoder_type}: "
                f"set {remedy}, or remove it"
            )
    return faults
