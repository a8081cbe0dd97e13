"""With nothing dropped, training with our types is training with stock's: loss for loss.

The commands themselves are run, so that the whole way is compared: batches, model, loss,
accumulation, normalisation, optimizer, validation and statistics. Batches are padded, with
sources of 1 to 14 words and targets of 1 to 9 beside each other.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import Tensor

from opennmt_sd.onmt.checkpoint import read

SGD = {"optim": "sgd", "learning_rate": 1.0, "dropout": 0.0}
WAYS: dict[str, dict[str, Any]] = {
    **{
        f"feed {feed}, {attention}": {"input_feed": feed, "global_attention": attention}
        for feed in (1, 0)
        for attention in ("dot", "general", "mlp")
    },
    "label smoothing": {"label_smoothing": 0.1},
    "label smoothing, no feed": {"label_smoothing": 0.1, "input_feed": 0},
    "accum_count": {"accum_count": 2},
    "normalization tokens": {"normalization": "tokens"},
    "accum_count, normalization tokens, no feed": {
        "accum_count": 2, "normalization": "tokens", "input_feed": 0,
    },
    "token batches": {"batch_type": "tokens", "batch_size": 60},
    "coverage": {"coverage_attn": True, "lambda_coverage": 0.5},
    "tied embeddings": {
        "share_vocab": True, "share_embeddings": True, "share_decoder_embeddings": True,
        "word_vec_size": 12,
    },
    "sparsemax, gate both, one direction": {
        "global_attention_function": "sparsemax", "context_gate": "both", "encoder_type": "rnn",
    },
    "GRU": {"rnn_type": "GRU"},
    "GRU, no feed, dot, bridge": {
        "rnn_type": "GRU", "input_feed": 0, "global_attention": "dot", "bridge": True,
    },
    "GRU, coverage, mlp, gate both, one direction": {
        "rnn_type": "GRU", "coverage_attn": True, "lambda_coverage": 0.5,
        "global_attention": "mlp", "context_gate": "both", "encoder_type": "rnn",
    },
    "fp16": {"model_dtype": "fp16"},
    # Validations and checkpoints take other tensors as weights, for as long as they last.
    "average_decay": {"average_decay": 0.1},
    "frozen encoder": {"freeze_encoder": True},
    "frozen decoder": {"freeze_decoder": True},
}  # fmt: skip


def types(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same options with stock's types and with ours."""
    encoder = options.get("encoder_type", "brnn")
    return (
        {**options, "encoder_type": encoder, "decoder_type": "rnn"},
        {**options, "encoder_type": f"sd_{encoder}", "decoder_type": "sd_rnn"},
    )


def run_both(commands: Any, options: dict[str, Any], **more: Any) -> tuple[Any, Any]:
    """Eight steps from one checkpoint and on the same batches: by stock's types, and by ours."""
    stock, ours = types({**SGD, **options})
    start = commands.train(1, "start", **stock).checkpoint()
    again = {"train_from": start, "override_opts": True, "valid_steps": 4,
             "save_checkpoint_steps": 9, **more}  # fmt: skip
    runs = [commands.train(9, n, **o, **again) for n, o in (("stock", stock), ("ours", ours))]
    assert {part.split(".")[0] for part in runs[0].parts} == {"onmt"}, "the reference is stock"
    assert {part.split(".")[0] for part in runs[1].parts} == {"opennmt_sd"}
    return runs[0], runs[1]


def compare(got: list[Any], want: list[Any]) -> None:
    """Statistics of onmt, counts exactly and sums to a relative 1e-4.

    Float32 may turn one guess out of hundreds, where two words are equally likely; in double
    precision, below, none.
    """
    assert [counts.step for counts in got] == [counts.step for counts in want]
    turned = 0
    for mine, stocks in zip(got, want):
        for key in ("n_batches", "n_sents", "n_words"):
            assert getattr(mine, key) == getattr(stocks, key), f"{key} of step {mine.step}"
        for key in ("loss", "ppl", "xent"):
            expected = pytest.approx(getattr(stocks, key), rel=1e-4)
            assert getattr(mine, key) == expected, f"{key} of step {mine.step}"
        assert mine.accuracy == pytest.approx(100 * mine.n_correct / mine.n_words)
        turned += abs(mine.n_correct - stocks.n_correct)
    assert turned <= 1


@pytest.mark.slow
@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_eight_steps_of_sgd(commands: Any, options: dict[str, Any]) -> None:
    stock, ours = run_both(commands, options)
    assert len(ours.updates) == 8
    assert len(ours.validations) == 2
    compare(ours.updates, stock.updates)
    compare(ours.validations, stock.validations)
    losses = [update.xent for update in stock.updates]
    assert min(losses) < losses[0] - 0.05, "something was learned"
    want, got = (read(run.checkpoint())["model"] for run in (stock, ours))
    assert list(got) == list(want)
    for key, weight in want.items():
        torch.testing.assert_close(got[key], weight, rtol=1e-4, atol=1e-4, msg=key)


def test_validation_drops_nothing(commands: Any) -> None:
    """Whatever training drops: the weights stay here, so that only validations are the same."""
    more = {"learning_rate": 0.0, "dropout": 0.5}
    stock, ours = run_both(commands, {**more, "label_smoothing": 0.1})
    compare(ours.validations, stock.validations)
    pairs = zip(ours.updates, stock.updates)
    assert any(mine.loss != pytest.approx(other.loss, rel=1e-4) for mine, other in pairs)


# ---------------------------------------------------------------- gradients, in double precision

H = 12
LENGTHS = ((9, 1, 4, 14, 2), (2, 11, 1, 5, 3))  # of sources and targets, neither sorted


def padded(lengths: tuple[int, ...], *, framed: bool) -> Tensor:
    """``[B, longest, 1]`` word ids; a target has a start and an end."""
    draw = torch.Generator().manual_seed(len(lengths) + framed)
    rows = [torch.randint(4, 24, (n,), generator=draw) for n in lengths]
    if framed:
        rows = [torch.cat([torch.tensor([2]), row, torch.tensor([3])]) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)[..., None]


def batch() -> dict[str, Tensor]:
    return {"src": padded(LENGTHS[0], framed=False), "srclen": torch.tensor(LENGTHS[0]),
            "tgt": padded(LENGTHS[1], framed=True)}  # fmt: skip


@pytest.fixture
def models(parse: Callable[..., Namespace]) -> Callable[..., list[tuple[Any, Any]]]:
    """Stock's model and ours with the same weights, in double precision, and their losses."""

    def models(**options: Any) -> list[tuple[Any, Any]]:
        from onmt.constants import DefaultTokens as D
        from onmt.train_single import build_model
        from onmt.utils.loss import LossCompute
        from onmt.utils.parse import ArgumentParser
        from pyonmttok import build_vocab_from_tokens

        words = [f"w{i}" for i in range(20)]
        vocab = build_vocab_from_tokens([D.UNK, D.PAD, D.BOS, D.EOS, *words])
        made = []
        for chosen in types({**SGD, "layers": 2, "hidden_size": H, "word_vec_size": 10, **options}):
            args = [
                a for k, v in chosen.items() for a in (f"-{k}", *([] if v is True else [str(v)]))
            ]
            opt = parse(*args)
            ArgumentParser.update_model_opts(opt)
            model = build_model(opt, opt, {"src": vocab, "tgt": vocab}, None, -1)
            if made:
                torch.nn.Module.load_state_dict(model, made[0][0].state_dict())
            model.double().train()
            model.opt = opt
            made.append((model, LossCompute.from_opts(opt, model, vocab)))
        return made

    return models


def gradients(model: Any, value: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    value.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_equal_to(relative: float, got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    assert got.keys() == want.keys()
    rounding = 1e-15  # of terms near 1 that cancel, where hardly anything is left
    for name, expected in want.items():
        assert (got[name] - expected).norm() <= relative * expected.norm() + rounding, name


OF_THE_MODEL = ("feed", "label", "coverage", "tied", "sparsemax", "GRU")
MODELS = {name: options for name, options in WAYS.items() if name.startswith(OF_THE_MODEL)}
MODELS["LoRA, general"] = {"lora_layers": "linear_in", "lora_rank": 2}
MODELS["LoRA, mlp"] = {"lora_layers": "linear_query", "lora_rank": 2, "global_attention": "mlp"}


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_gradients_of_the_decoders_output(models: Any, options: dict[str, Any]) -> None:
    """Of every output and attention up to a target's end; what comes later is nobody's business."""
    results = []
    for model, _ in models(**options):
        given = batch()
        counts = given["tgt"][:, 1:].ne(1)  # [B, T - 1, 1]
        output, attentions = model(given["src"], given["tgt"], given["srclen"])
        g = torch.Generator().manual_seed(3)
        value = (output * counts * torch.randn(output.shape, generator=g)).sum()
        for name in attentions:
            # Time first with input feed.
            attention = (
                attentions[name].transpose(0, 1) if model.opt.input_feed else attentions[name]
            )
            value = value + (attention * counts).square().sum()
        results.append(((output * counts).detach(), gradients(model, value)))
    (want_output, want), (output, got) = results
    torch.testing.assert_close(output, want_output, rtol=1e-9, atol=1e-12)
    assert_equal_to(1e-9, got, want)


@pytest.fixture
def double_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock's loss turns scores into float32, whatever they were: here it leaves them double."""
    import onmt.utils.loss

    double = SimpleNamespace(**{**vars(torch), "float32": torch.float64})
    monkeypatch.setattr(onmt.utils.loss, "torch", double)


def compare_losses(pair: list[tuple[Any, Any]], given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Loss, statistics and gradients; gives our gradients."""
    results = []
    for model, compute in pair:
        output, attentions = model(given["src"], given["tgt"], given["srclen"])
        value, stats = compute(given, output, attentions)
        counts = (stats.n_words, stats.n_correct, stats.n_sents, stats.n_batchs)
        results.append((stats.loss, counts, gradients(model, value)))
    (want_loss, want_counts, want), (loss, counts, got) = results
    assert counts == want_counts
    assert counts[0] == given["tgt"][:, 1:].ne(1).sum()
    assert loss == pytest.approx(want_loss, rel=1e-9)
    assert_equal_to(1e-9, got, want)
    return got


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_gradients_of_the_loss(models: Any, double_loss: None, options: dict[str, Any]) -> None:
    """Through the loss and its statistics; what is padded counts for nothing."""
    got = compare_losses(models(**options), batch())
    if not {"share_decoder_embeddings", "lora_layers"} & options.keys():
        for side in ("encoder", "decoder"):
            table = got[f"{side}.embeddings.make_embedding.emb_luts.0.weight"]
            assert not table[1].any(), "the padding word learns nothing"


@pytest.mark.parametrize(
    "layer", ["generator", "decoder.attn.linear_in", "decoder.attn.linear_out"]
)
def test_pruned_layers(models: Any, double_loss: None, layer: str) -> None:
    """Pruning makes a weight by a hook, at each call of its layer."""
    pair = models()
    for model, _ in pair:
        torch.manual_seed(4)
        linear = model.get_submodule(layer)
        torch.nn.utils.prune.random_unstructured(linear, "weight", 0.5)
        with torch.no_grad():
            linear.weight_orig.mul_(1.5)  # as an update would
    assert f"{layer}.weight_orig" in compare_losses(pair, batch())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("feed", [1, 0], ids=["input feed", "no input feed"])
def test_padding_anywhere(models: Any, double_loss: None, feed: int, smoothing: float) -> None:
    """As `zero_out_prompt_loss` makes it: before a target and within, a step and a row of it."""
    given = batch()
    given["tgt"][1, 1:4] = 1
    given["tgt"][3, 2] = 1
    given["tgt"][0, 1:] = 1
    compare_losses(models(input_feed=feed, label_smoothing=smoothing), given)
    given["tgt"][:, 3] = 1
    compare_losses(models(input_feed=feed, label_smoothing=smoothing), given)
