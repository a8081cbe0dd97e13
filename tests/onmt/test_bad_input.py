"""Unlikely texts, checkpoints of the other kind, and all that translation is asked for.

What stock OpenNMT-py does with a text is the measure: ours does the same, or says why not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from opennmt_sd.onmt.checkpoint import read
from opennmt_sd.onmt.export import export

pytestmark = pytest.mark.slow

STOCK = {"encoder_type": "brnn", "decoder_type": "rnn"}
WORDS = [f"w{i}" for i in range(20)]
feeds = pytest.mark.parametrize("feed", [1, 0], ids=["input feed", "no input feed"])


def text(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


LONG = " ".join(WORDS[i * i % 20] for i in range(500))
ODD = {
    "one token": (text(*WORDS), text(*WORDS[::-1])),
    "empty sources": (text("w1 w2", "", "w3", "", "w4 w5 w6"), text("w1", "w2", "w3 w4", "w5", "")),
    "one sentence": (text("w1 w2 w3"), text("w4 w5")),
    "500 tokens": (text("w1", LONG, "w2 w3"), text("w1", "w2 " * 30, "w3")),
    "nothing known": (text("a b", "c", "d e f"), text("g", "h i j k", "l")),
}


@feeds
@pytest.mark.parametrize(("sources", "targets"), ODD.values(), ids=ODD)
def test_odd_texts_train_as_with_stock(
    commands: Any, sources: str, targets: str, feed: int
) -> None:
    options = {**commands.data(train_src=sources, train_tgt=targets), "input_feed": feed}
    stock = commands.train(2, "stock", dropout=0.0, **options, **STOCK)
    ours = commands.train(2, "ours", dropout=0.0, **options)
    for mine, other in zip(ours.updates, stock.updates):
        assert (mine.n_sents, mine.n_words) == (other.n_sents, other.n_words)
        assert mine.loss == pytest.approx(other.loss, rel=1e-4)
    # And with everything dropped that can be.
    rates = {"dropout": 0.5, "sd_recurrent_dropout": 0.5}
    dropped = commands.train(2, "dropped", **options, **rates)
    assert [update.step for update in dropped.updates] == [1, 2]
    assert all(w.isfinite().all() for w in read(dropped.checkpoint())["model"].values())


def test_an_empty_source_is_skipped(commands: Any) -> None:
    sources, targets = ODD["empty sources"]
    run = commands.train(1, **commands.data(train_src=sources, train_tgt=targets), bucket_size=5)
    assert run.updates[0].n_sents == 3


@feeds
def test_batches_of_one_sentence(commands: Any, feed: int) -> None:
    options = {"batch_size": 1, "bucket_size": 1, "input_feed": feed}
    stock = commands.train(4, "stock", dropout=0.0, **options, **STOCK)
    ours = commands.train(4, "ours", dropout=0.0, **options)
    assert [update.n_sents for update in ours.updates] == [1] * 4
    for mine, other in zip(ours.updates, stock.updates):
        assert mine.loss == pytest.approx(other.loss, rel=1e-4)
    commands.train(4, "dropped", dropout=0.5, sd_recurrent_dropout=0.5, **options)


@feeds
def test_vocabularies_of_ten_words(commands: Any, feed: int) -> None:
    vocab = commands.folder / "vocab"
    vocab.write_text(text(*WORDS[:6]))  # onmt adds four, and would fill up to a multiple of 8
    options = {"src_vocab": vocab, "tgt_vocab": vocab, "vocab_size_multiple": 1,
               "input_feed": feed, "dropout": 0.3}  # fmt: skip
    run = commands.train(2, **options)
    assert [len(words) for side, words in read(run.checkpoint())["vocab"].items()
            if side in ("src", "tgt")] == [10, 10]  # fmt: skip
    assert len(commands.translate(run.checkpoint()).lines) == 5


# ---------------------------------------------------------------- checkpoints of the other kind


def test_a_stock_checkpoint_with_our_types(
    commands: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not silently stock: the text names the option, and nothing is written."""
    start = commands.train(2, "start", dropout=0.3, **STOCK).checkpoint()
    before = sorted(commands.folder.iterdir())
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        commands.train(4, "ours", dropout=0.3, train_from=start)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert "encoder_type sd_brnn would be ignored: the checkpoint was trained with brnn" in error
    assert "decoder_type sd_rnn would be ignored: the checkpoint was trained with rnn" in error
    assert error.count("Add --override_opts to resume it with this run's options") == 2
    assert sorted(commands.folder.iterdir()) == before

    run = commands.train(4, "ours", dropout=0.3, train_from=start, override_opts=True)
    assert [update.step for update in run.updates] == [3, 4]
    assert read(run.checkpoint())["opt"].decoder_type == "sd_rnn"


def test_our_checkpoint_with_stock_types(commands: Any) -> None:
    """A checkpoint's options win, as ever; `--override_opts` makes it stock's."""
    start = commands.train(2, "start", dropout=0.3).checkpoint()
    kept = commands.train(3, "kept", dropout=0.3, train_from=start, rnn_type="GRU", **STOCK)
    assert read(kept.checkpoint())["opt"].decoder_type == "sd_rnn"
    (line,) = [line for line in kept.log if "kept from the checkpoint" in line]
    assert "encoder_type sd_brnn (this run: brnn)" in line
    assert line.endswith(
        "encoder_type sd_brnn (this run: brnn), decoder_type sd_rnn (this run: rnn); of a model "
        "with its weights --override_opts would take this run's"
    )
    assert [line for line in kept.log if "checkpoint's weights" in line] == [
        "opennmt_sd: the checkpoint's weights are of rnn_type LSTM (this run: GRU); another model "
        "begins without train_from"
    ]

    run = commands.train(4, "stock", dropout=0.3, train_from=start, override_opts=True, **STOCK)
    assert [update.step for update in run.updates] == [3, 4]
    assert read(run.checkpoint())["opt"].decoder_type == "rnn"
    assert {part.split(".")[0] for part in run.parts} == {"onmt"}


# ---------------------------------------------------------------- what translation is asked for


@dataclass
class Models:
    """A model of ours, the same weights with stock's types, and another model of stock's."""

    commands: Any
    ours: Path
    same: Path
    other: Path

    def agree(self, **options: Any) -> Any:
        """Our translation, which must be stock's with the same weights, log included."""
        ours = self.commands.translate(self.ours, **options)
        same = self.commands.translate(self.same, **options)
        assert ours.lines == same.lines
        assert [line for line in ours.log if "Loading" not in line] == [
            line for line in same.log if "Loading" not in line
        ]
        return ours


@pytest.fixture(scope="module", params=[1, 0], ids=["input feed", "no input feed"])
def models(
    commands_in: Callable[[Path], Any],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Models:
    """Trained on a target vocabulary that lacks most words, so that they say ``<unk>``."""
    commands = commands_in(tmp_path_factory.mktemp("models"))
    vocab = commands.folder / "vocab"
    vocab.write_text(text(*WORDS[:4]))
    options = {"tgt_vocab": vocab, "learning_rate": 0.03, "input_feed": request.param,
               "save_checkpoint_steps": 40}  # fmt: skip
    ours = commands.train(40, "ours", dropout=0.3, **options).checkpoint()
    other = commands.train(10, "other", **options, **STOCK).checkpoint()
    export(ours, commands.folder / "same.pt")
    return Models(commands, ours, commands.folder / "same.pt", other)


@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 1},
        {"beam_size": 5, "n_best": 5},
        {"beam_size": 5, "length_penalty": "wu", "alpha": 0.6, "block_ngram_repeat": 2},
        {"beam_size": 5, "coverage_penalty": "wu", "beta": 0.2, "stepwise_penalty": True},
        # with_score works with sampling alone: stock asks a float for its item().
        {"beam_size": 1, "random_sampling_topk": 3, "seed": 5, "with_score": True},
        {"batch_size": 1},
        {"batch_type": "tokens", "batch_size": 20},
        {"verbose": True},
        {"precision": "fp16"},
    ],
    ids=lambda options: ", ".join(f"{k} {v}" for k, v in options.items()),
)
def test_translates_as_stock_does(models: Models, options: dict[str, Any]) -> None:
    assert len(models.agree(**options).lines) == 5 * options.get("n_best", 1)


SOURCES = {
    "one token": (text("w1", "w2", "zzz"), 3),
    "an empty line stays one": (text("w1 w2", "", "w3"), 3),
    "500 tokens": (text("w1", LONG), 2),
    "one sentence": (text("w5 w6 w7"), 1),
    "no newline at the end": ("w1\nw2", 2),
}


@pytest.mark.parametrize(("source", "count"), SOURCES.values(), ids=SOURCES)
def test_odd_sources_are_translated_as_by_stock(models: Models, source: str, count: int) -> None:
    assert len(models.agree(source=source).lines) == count


def test_attn_debug(models: Models) -> None:
    """By sentence: within a batch, stock's beam search cuts a row at another sentence's length."""
    models.agree(attn_debug=True)
    translation = models.agree(attn_debug=True, batch_size=1)
    tables = [line for line in translation.log if "</s>" in line]
    assert len(tables) == 5
    sources = (models.commands.corpus / "test.src").read_text().split("\n")
    for table, source, line in zip(tables, sources, translation.lines):
        header, *rows = table.rstrip("\n").split("\n")
        assert header.split() == source.split()
        assert [row.split()[0] for row in rows] == [*line.split(), "</s>"][: len(rows)]
        for row in rows:
            weights = torch.tensor([float(number) for number in row.split()[1:]])
            assert len(weights) == len(source.split())
            assert weights.sum().item() == pytest.approx(1, abs=1e-4)


def test_replace_unk(models: Models) -> None:
    assert "<unk>" in " ".join(models.agree().lines)
    replaced = models.agree(replace_unk=True)
    words = {word for line in replaced.lines for word in line.split()}
    assert words <= set(WORDS), "an unknown word is replaced by one of the source"


def test_ensembles(models: Models) -> None:
    def translate(*chosen: Path) -> Any:
        return models.commands.translate(*chosen, attn_debug=True, replace_unk=True, beam_size=4)

    ours, stock = translate(models.ours, models.other), translate(models.same, models.other)
    assert len(ours.lines) == 5
    assert ours.lines == stock.lines
    assert ours.log[-1] == stock.log[-1]
    alone = translate(models.other)
    assert alone.log[-1] != ours.log[-1], "both models have a say"


def test_what_no_rnn_can_do_is_refused(models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        models.commands.translate(models.ours, report_align=True)
    assert exit_.value.code == 2
    assert "error: report_align does not work with decoder_type sd_rnn" in capsys.readouterr().err
