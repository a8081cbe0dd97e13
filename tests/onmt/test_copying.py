"""Copied words: their probabilities and loss are what the formulas say; a model learns to copy."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SPECIALS = ["<unk>", "<blank>", "<s>", "</s>"]
B, T, S, H = 3, 4, 5, 8
SOURCES = [["a", "x", "b", "x", "y"], ["z", "a"], ["b", "q", "a"]]
TARGETS = [["a", "x", "y"], ["z"], ["q", "b"]]  # x, y, z, q are in no vocabulary


def batch_of(vocab: Any) -> dict[str, Any]:
    """What OpenNMT-py makes of the sentences, by its own functions."""
    from onmt.inputters.text_utils import _addcopykeys, numericalize, tensorify

    vocabs = {"src": vocab, "tgt": vocab, "data_task": "seq2seq", "decoder_start_token": "<s>"}
    rows = [
        {"src": {"src": " ".join(src)}, "tgt": {"tgt": " ".join(tgt)}, "cid": "", "align": None,
         "cid_line_number": i}
        for i, (src, tgt) in enumerate(zip(SOURCES, TARGETS, strict=True))
    ]  # fmt: skip
    examples = [(numericalize(vocabs, _addcopykeys(vocabs, row)), i) for i, row in enumerate(rows)]
    batch: dict[str, Any] = tensorify(vocabs, examples, "cpu")
    return batch


@pytest.fixture
def parts(plugin: None) -> Any:
    """A generator, its loss, a batch, and what a decoder might have put out."""
    from onmt.modules import CopyGenerator, CopyGeneratorLoss
    from onmt.utils.loss import LossCompute
    from pyonmttok import build_vocab_from_tokens

    from opennmt_sd.onmt.copying import CopyLossCompute

    torch.manual_seed(0)
    vocab = build_vocab_from_tokens([*SPECIALS, "a", "b"])
    vocab.default_id = 0
    generator = CopyGenerator(H, len(vocab), 1)
    criterion = CopyGeneratorLoss(len(vocab), False, unk_index=0, ignore_index=1)
    loss = LossCompute(criterion, generator, copy_attn=True, vocab=vocab)
    loss = CopyLossCompute.take_over(loss, by_length=False)
    lengths = torch.tensor([len(source) for source in SOURCES])
    attn = torch.rand(B, T, S).masked_fill(torch.arange(S) >= lengths[:, None, None], 0.0)
    return loss, batch_of(vocab), torch.randn(B, T, H), attn / attn.sum(-1, keepdim=True)


def probability(
    loss: Any, hidden: torch.Tensor, attn: torch.Tensor, source: list[str], word: str
) -> float:
    """Of one word at one step: See et al., 2017, equation 9, by hand."""
    logits = loss.generator.linear(hidden)
    logits[1] = -math.inf
    copies = torch.sigmoid(loss.generator.linear_copy(hidden))
    known = word in [*SPECIALS, "a", "b"]
    written = (1 - copies) * logits.softmax(0)[loss.vocab[word]] if known else 0.0
    return float(written + copies * sum(attn[i] for i, own in enumerate(source) if own == word))


def test_the_loss_is_the_sum_of_the_words(parts: Any) -> None:
    loss, batch, output, attn = parts
    expected = 0.0
    for b, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        for t, word in enumerate([*target, "</s>"]):
            expected -= math.log(probability(loss, output[b, t], attn[b, t], source, word))
    found, stats = loss(batch, output, {"copy": attn.transpose(0, 1)})
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert (stats.n_words, stats.loss) == (9, pytest.approx(expected, rel=1e-5))


def test_coverage_is_of_words(parts: Any) -> None:
    """See et al., 2017, equation 12: of the steps that have a word."""
    loss, batch, output, attn = parts
    attns = {"copy": attn.transpose(0, 1), "std": attn.transpose(0, 1)}
    alone, _ = loss(batch, output, attns)
    loss.lambda_coverage = 0.5
    attns["coverage"] = attns["std"].cumsum(0)
    covered, stats = loss(batch, output, attns)
    expected = 0.0
    for b, target in enumerate(TARGETS):
        for t in range(len(target) + 1):
            expected += float(torch.minimum(attn[b, t], attn[b, :t].sum(0)).sum())
    assert (covered - alone).item() == pytest.approx(expected, rel=1e-4)
    assert stats.loss == pytest.approx(covered.item())


def test_guesses_are_counted_by_word(parts: Any) -> None:
    loss, batch, output, attn = parts
    correct = 0
    for b, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        for t, word in enumerate([*target, "</s>"]):
            words = {*SPECIALS, "a", "b", *source}
            of = {w: probability(loss, output[b, t], attn[b, t], source, w) for w in words}
            correct += max(of, key=of.__getitem__) == word
    assert loss(batch, output, {"copy": attn.transpose(0, 1)})[1].n_correct == correct


def test_by_length(parts: Any) -> None:
    loss, batch, output, attn = parts
    attns = {"copy": attn.transpose(0, 1)}
    whole, stats = loss(batch, output, attns)
    loss.by_length = True
    divided, same = loss(batch, output, attns)
    alone = []
    for b, target in enumerate(TARGETS):
        rows = {key: value[b : b + 1] for key, value in batch.items()}
        loss.by_length = False
        alone.append(loss(rows, output[b : b + 1], {"copy": attn[b : b + 1].transpose(0, 1)})[0])
        alone[-1] = alone[-1] / (len(target) + 1)
    assert divided.item() == pytest.approx(sum(alone).item(), rel=1e-5)
    assert same.loss == stats.loss == pytest.approx(whole.item())


def test_dropped_units_are_left_out(parts: Any) -> None:
    from opennmt_sd.dropout import DropoutPattern
    from opennmt_sd.seq2seq.loss import mark_kept

    loss, batch, output, attn = parts
    keep = DropoutPattern(0.5).draw(T, B, H, torch.Generator().manual_seed(0))
    output = keep.apply(output.transpose(0, 1)).transpose(0, 1).detach()
    outputs = [output.clone().requires_grad_() for _ in range(2)]
    mark_kept(outputs[1], keep)
    for each in outputs:
        loss(batch, each, {"copy": attn.transpose(0, 1)})[0].backward()
    kept = keep.mask().expand(T, B, H).transpose(0, 1)
    torch.testing.assert_close(outputs[0].grad * kept, outputs[1].grad * kept)


def test_a_model_learns_to_copy(commands: Any, tmp_path: Path) -> None:
    """Words that no vocabulary has, in the order of the source; and the scores of targets."""
    few = tmp_path / "few"
    few.write_text("the\n")
    lines = "".join(f"n{i} the n{i + 1}\n" for i in range(0, 120, 2))
    data = commands.data(train_src=lines, train_tgt=lines)
    run = commands.train(
        100, copy_attn=True, reuse_copy_attn=True, src_vocab=few, tgt_vocab=few, data=data["data"],
        learning_rate=0.03, batch_size=20, bucket_size=60, layers=1, hidden_size=24,
        save_checkpoint_steps=100, input_feed=1,
    )  # fmt: skip
    source = "m1 the m2\nm3 the m4\nm5 the m6\n"
    out = commands.translate(run.checkpoint(), source=source, batch_size=3)
    assert out.lines[0].split()[0] == "m1"
    assert out.lines == source.splitlines()
    target = tmp_path / "target"
    target.write_text(source.replace("m3", "elsewhere"))
    log = commands.translate(run.checkpoint(), source=source, tgt=target, verbose=True).log
    gold = [float(text.rpartition("GOLD SCORE: ")[2]) for text in log if "SENT " in text]
    assert gold[0] > -1, "a copy is no unknown word"
    assert gold[1] < gold[0] - 2


def test_a_checkpoint_of_before_loads_as_well(commands: Any) -> None:
    """Stock decoders trained it all the time; what was saved can be used now."""
    stock = {"encoder_type": "brnn", "decoder_type": "rnn"}
    run = commands.train(2, copy_attn=True, **stock)
    assert run.parts[2] == "onmt.utils.loss"
    assert len(commands.translate(run.checkpoint(), replace_unk=True).lines) == 5
    taken = commands.train(3, "taken", copy_attn=True, train_from=run.checkpoint(),
                           override_opts=True)  # fmt: skip
    assert taken.parts[2] == "opennmt_sd.onmt.copying"
    two = commands.translate(taken.checkpoint(), run.checkpoint())
    assert len(two.lines) == 5


def test_translation_in_half_precision(commands: Any, untrained: Callable[..., Path]) -> None:
    model = untrained(copy_attn=True)
    full = commands.translate(model, with_score=True).lines
    half = commands.translate(model, with_score=True, precision="fp16").lines
    scores = [[float(line.split("\t")[1]) for line in lines] for lines in (full, half)]
    assert scores[1] == pytest.approx(scores[0], abs=0.1)
    assert scores[1] != scores[0]
