"""The plugin gets into OpenNMT-py whatever is imported first, and only once."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import pytest
import torch

# Each runs in a process of its own; the asserts below hold in all.
ORDERS = {
    "onmt_first": "import onmt; register()",
    "plugin_first": "register(); register()",
    "encoder_first": "import opennmt_sd.onmt.encoder, opennmt_sd.onmt.decoder; register()",
    "commands_first": "import onmt.bin.train, onmt.bin.translate; register()",
}

CHECK = """
import argparse, inspect, io, sys
from opennmt_sd.onmt import register
assert "onmt" not in sys.modules, "the package must stay light"
{order}
import onmt.bin.train, onmt.model_builder, onmt.train_single, onmt.translate.translator
from onmt.decoders import str2dec
from onmt.encoders import str2enc
assert {{"sd_rnn", "sd_brnn"}} <= set(str2enc) and "sd_rnn" in str2dec
from onmt.train_single import build_model
assert build_model is onmt.model_builder.build_model, "train_single kept stock's"
assert list(inspect.signature(build_model).parameters) == [
    "model_opt", "opt", "vocabs", "checkpoint", "device_id"]
for wrapped in (
    build_model, onmt.model_builder.load_test_model, onmt.opts.model_opts,
    onmt.utils.parse.ArgumentParser.parse_known_args,
):
    assert hasattr(wrapped, "__wrapped__"), wrapped
    assert not hasattr(wrapped.__wrapped__, "_wrapped_by_opennmt_sd"), f"{{wrapped}} twice"
import torch
file = io.BytesIO()
torch.save({{"opt": argparse.Namespace(a=1)}}, file)
file.seek(0)
assert torch.load(file)["opt"].a == 1
print("fine")
"""


@pytest.mark.parametrize(
    ("order", "autoload"),
    [
        *((order, "0") for order in ORDERS),
        *((order, "1") for order in ("plugin_first", "encoder_first")),
    ],
)
def test_any_order(order: str, autoload: str, run_warm: Callable[..., Any]) -> None:
    done = run_warm("-c", CHECK.format(order=ORDERS[order]), OPENNMT_SD_AUTOLOAD=autoload)
    assert done.stdout == "fine\n", done.stderr
    assert "opennmt_sd could not load" not in done.stderr


def test_the_package_is_light(run_python: Callable[..., Any]) -> None:
    code = (
        "import sys; from opennmt_sd.onmt import register\n"
        "print({'onmt', 'torch'} & {*sys.modules})"
    )
    assert run_python("-c", code).stdout == "set()\n"


@pytest.mark.parametrize("feed", ["0", "1"])
@pytest.mark.parametrize(
    ("encoder", "decoder", "line"),
    [
        ("sd_brnn", "rnn", "decoder stock, output stock, recurrent 0 "),
        ("brnn", "sd_rnn", "src_embedding stock, encoder stock, "),
        ("sd_rnn", "sd_rnn", "src_embedding 0.3 structured/random/exact, "),
        ("mean", "sd_rnn", "src_embedding stock, encoder stock, "),
    ],
)
def test_types_mix_with_stocks(
    parse: Callable[..., Namespace],
    caplog: pytest.LogCaptureFixture,
    encoder: str,
    decoder: str,
    line: str,
    feed: str,
) -> None:
    from onmt.constants import DefaultTokens as D
    from onmt.model_builder import build_model
    from onmt.utils.parse import ArgumentParser
    from pyonmttok import build_vocab_from_tokens

    opt = parse("-encoder_type", encoder, "-decoder_type", decoder, "-hidden_size", "8",
                "-word_vec_size", "8", "-input_feed", feed)  # fmt: skip
    ArgumentParser.update_model_opts(opt)
    vocab = build_vocab_from_tokens([D.UNK, D.PAD, D.BOS, D.EOS, "a", "b"])
    with caplog.at_level("INFO", "onmt"):
        model = build_model(opt, opt, {"src": vocab, "tgt": vocab}, None, -1)
    assert line in caplog.messages[-1]
    src, tgt = torch.randint(4, 6, (3, 5, 1)), torch.randint(4, 6, (3, 4, 1))
    out, _ = model(src, tgt, torch.tensor([5, 4, 2]))
    assert out.shape == (3, 3, 8)
    out.sum().backward()
    for part in (model.encoder, model.decoder):
        if hasattr(part, "plan"):
            part.update_dropout(0.1)
            assert part.plan.pattern("output").p == 0.1


def test_a_loss_of_somebody_elses_stays_theirs(parse: Callable[..., Namespace]) -> None:
    """`from_opts` is a class method: of a subclass it makes one, and that computes by itself."""
    from onmt.constants import DefaultTokens as D
    from onmt.model_builder import build_model
    from onmt.utils.loss import LossCompute
    from onmt.utils.parse import ArgumentParser
    from pyonmttok import build_vocab_from_tokens

    from opennmt_sd.onmt.loss import StructuredLossCompute

    class Theirs(LossCompute):
        pass

    opt = parse("-hidden_size", "8", "-word_vec_size", "8")
    ArgumentParser.update_model_opts(opt)
    vocab = build_vocab_from_tokens([D.UNK, D.PAD, D.BOS, D.EOS, "a", "b"])
    model = build_model(opt, opt, {"src": vocab, "tgt": vocab}, None, -1)
    assert type(Theirs.from_opts(opt, model, vocab)) is Theirs
    assert type(LossCompute.from_opts(opt, model, vocab)) is StructuredLossCompute
