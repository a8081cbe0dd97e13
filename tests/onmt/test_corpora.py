"""Texts as they are: filtered to nothing, odd in their white space, or not to be read."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from opennmt_sd.onmt.checkpoint import read
from opennmt_sd.onmt.corpora import CorpusError
from opennmt_sd.onmt.vocabulary_file import VocabularyError, read_vocabulary
from opennmt_sd.seq2seq.refusals import UnsupportedOptionsError

LONG = "w1 " * 300 + "\n"
FILTERED = {
    "source too long": (LONG, "w1\n"),
    "target too long": ("w1\n", LONG),
    "blank sources": ("\n  \n\n", "w1\nw2\nw3\n"),
    "no lines": ("", ""),
}


def filtering(commands: Any, **files: str) -> dict[str, Any]:
    return {**commands.data(**files), "transforms": "filtertoolong"}


@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize(("source", "target"), FILTERED.values(), ids=FILTERED)
@pytest.mark.timeout(60)  # it went on for ever
def test_a_corpus_without_a_usable_pair(
    commands: Any, split: str, source: str, target: str
) -> None:
    options = filtering(commands, **{f"{split}_src": source, f"{split}_tgt": target})
    with pytest.raises(CorpusError) as caught:
        commands.train(1, **options)
    name = {"train": "corpus_1", "valid": "valid"}[split]
    files = " and ".join(str(commands.folder / f"{split}_{side}") for side in ("src", "tgt"))
    assert str(caught.value).startswith(
        f"data: {name}: no pair of {files} is left after the transforms filtertoolong "
        "(src_seq_length is 192, tgt_seq_length 192: raise them): "
    )
    assert not list(commands.folder.glob("model*"))


@pytest.mark.parametrize("split", ["train", "valid"])
def test_lines_that_have_no_partner(commands: Any, split: str) -> None:
    """The rest of the longer file would be left out, and what stands before may be shifted."""
    given = {f"{split}_src": "w1\nw2\nw3\n", f"{split}_tgt": "w1\nw2"}
    with pytest.raises(UnsupportedOptionsError) as caught:
        commands.train(1, **commands.data(**given))
    name = {"train": "corpus_1", "valid": "valid"}[split]
    files = ", ".join(
        f"path_{side} {commands.folder / f'{split}_{side}'} has {lines}"
        for side, lines in (("src", 3), ("tgt", 2))
    )
    assert str(caught.value) == (
        f"data: {name}: its files have not equally many lines ({files}): which belong together? "
        "Give one line for each, a blank one where there is none"
    )


@pytest.mark.parametrize("target", ["w1\nw2\n\n \n", "w1\n\n", "w1\nw2"], ids=repr)
def test_blank_lines_at_the_end_do_no_harm(commands: Any, target: str) -> None:
    given = commands.data(train_src="w1 w2\nw3\n", train_tgt=target)
    assert commands.train(1, **given).updates[0].n_sents == 2


def test_a_vocabulary_without_a_frequent_word(commands: Any) -> None:
    (commands.folder / "rare").write_text("w1\t2\nw2\t1\n")
    options = {"tgt_vocab": commands.folder / "rare", "tgt_words_min_frequency": 3}
    with pytest.raises(UnsupportedOptionsError) as caught:
        commands.train(1, **options)
    assert str(caught.value) == (
        f"tgt_vocab {commands.folder}/rare: no word is seen 3 times, which "
        "tgt_words_min_frequency asks for: lower it"
    )


@pytest.mark.timeout(60)
def test_several_corpora(commands: Any) -> None:
    (commands.folder / "long").write_text(LONG)
    corpus = commands.corpus
    good = f"{{path_src: {corpus}/train.src, path_tgt: {corpus}/train.tgt, weight: 1}}"
    bad = f"{{path_src: {commands.folder}/long, path_tgt: {commands.folder}/long, weight: 3}}"
    options = {"transforms": "filtertoolong", "bucket_size": 40}
    run = commands.train(1, data=f"{{a: {good}, b: {bad}}}", **options)
    (warning,) = [line for line in run.log if "no pair of" in line]
    assert warning.startswith("opennmt_sd: data: b: no pair of ")
    assert warning.endswith("; the other corpora are trained on")
    with pytest.raises(CorpusError, match=r"data: a: no pair of .*; data: b: no pair of "):
        commands.train(1, "none", data=f"{{a: {bad}, b: {bad}}}", **options)


def test_more_workers_than_there_are_lines(commands: Any) -> None:
    options = commands.data(train_src="w1 w2\n", train_tgt="w3\n")
    with pytest.raises(CorpusError, match="worker 2 of 2 would find no usable pair, and wait"):
        commands.train(1, **options, num_workers=2)
    commands.train(1, **options)


@pytest.mark.parametrize(
    ("lines", "workers", "text"),
    [
        ("", 0, "data: b: its files are empty: leave this corpus out"),
        ("w1\n", 2, "data: b: worker 2 of 2 would find no line of it: it is too small for "
         "num_workers 2: set num_workers: 0"),
    ],
)  # fmt: skip
def test_a_corpus_without_a_line_for_a_worker(
    commands: Any, lines: str, workers: int, text: str
) -> None:
    """Stock ends there in a traceback; where the corpus is left out, there is nothing to say."""
    (commands.folder / "few").write_text(lines)
    corpus, few = commands.corpus, commands.folder / "few"

    def data(weight: int) -> str:
        good = f"{{path_src: {corpus}/train.src, path_tgt: {corpus}/train.tgt, weight: 1}}"
        return f"{{a: {good}, b: {{path_src: {few}, path_tgt: {few}, weight: {weight}}}}}"

    with pytest.raises(CorpusError) as caught:
        commands.train(1, data=data(1), num_workers=workers)
    assert str(caught.value) == text
    if not workers:
        assert len(commands.train(1, data=data(0)).updates) == 1


def test_looking_draws_no_random_numbers(commands: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same training as without: a pair is looked at with transforms that draw."""
    from opennmt_sd.onmt import corpora

    options = {"transforms": ["tokendrop", "switchout"], "dropout": 0.3}
    with_look = commands.train(2, "with", **options)
    monkeypatch.setattr(corpora, "check_corpora", lambda *_: None)
    without = commands.train(2, "without", **options)
    assert [u.loss for u in with_look.updates] == [u.loss for u in without.updates]


def test_random_state_is_kept(commands: Any) -> None:
    from opennmt_sd.onmt.corpora import _random_state_kept

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with _random_state_kept():
        random.random(), np.random.rand(), torch.rand(1)
    drawn = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert drawn == (random.random(), np.random.rand(), torch.rand(1).item())


# Lines and words.

SOURCES = "a\tb c\nd\u2028e f\ng\x85h\n i  j \nk\xa0l m\u3000n\n"
TARGETS = "A\tB\nC\u2028D\n   \nE\x85F G  H\nI\n"


@pytest.mark.parametrize("sharing", [False, True])
def test_odd_white_space_is_read(commands: Any, sharing: bool) -> None:
    from onmt.bin import build_vocab

    data = commands.data(train_src=SOURCES, train_tgt=TARGETS)
    paths = {"src_vocab": commands.folder / "v.src", "tgt_vocab": commands.folder / "v.tgt"}
    options = {"-data": data["data"], "-save_data": commands.folder / "x", "-n_sample": -1,
               **{f"-{key}": path for key, path in paths.items()}}  # fmt: skip
    words = [str(word) for pair in options.items() for word in pair]
    words += ["-share_vocab"] * sharing
    build_vocab.build_vocab_main(build_vocab._get_parser().parse_known_args(words)[0])
    run = commands.train(1, **{**data, **paths}, share_vocab=sharing)
    vocab = read(run.checkpoint())["vocab"]
    assert {"a\tb", "c", "d\u2028e", "g\x85h", "", "k\xa0l", "m\u3000n"} <= set(vocab["src"])
    assert {"A\tB", "C\u2028D", "E\x85F", "", "H"} <= set(vocab["tgt"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\t3\nb\t1\n", ["a", "b"]),
        (b"a 3\nb 1\n", ["a", "b"]),
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"\xef\xbb\xbfa\nb\n", ["a", "b"]),
        (b"\t9\na\t3\n", ["", "a"]),
        (b"3\n12\n", ["3", "12"]),
        ("x\u2028y\t3\n\u3000\t2\n".encode(), ["x\u2028y", "\u3000"]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"a\nb\nc\r\n", ["a", "b", "c\r"]),
        (b"a\t5\r\nb\t4\r\nc\t3\nd\t2\n", ["a", "b", "c", "d"]),
        (b"<x>\na\r\nb\r\n", ["<x>", "a", "b"]),
        (b"a\r\n\r\nb", ["a", "", "b"]),
    ],
)
def test_vocabularies(tmp_path: Any, content: bytes, words: list[str]) -> None:
    path = tmp_path / "vocab"
    path.write_bytes(content)
    assert read_vocabulary(str(path), 1) == words


def test_rare_words_are_left_out(tmp_path: Any) -> None:
    path = tmp_path / "vocab"
    path.write_text("a\t3\nb\t1\nc\t2\n")
    assert read_vocabulary(str(path), 2) == ["a", "c"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"a\t3\n\nb\t2\n", ", line 2 is blank: remove that line"),
        (b"a\t3\nb\nc\t1\n", ", line 2: 'b' has no count, as other lines have: add a tab and a"),
        (b"a\n\xe4\n", ", line 2: b'\\xe4' is not UTF-8 (unexpected end of data): convert the"),
        (b"", ": holds no words: make it with onmt_build_vocab from texts that hold some"),
    ],
)
def test_vocabularies_that_cannot_be_used(commands: Any, content: bytes, text: str) -> None:
    path = commands.folder / "vocab"
    path.write_bytes(content)
    with pytest.raises(VocabularyError) as caught:
        read_vocabulary(str(path), 1)
    assert str(caught.value).startswith(f"{path}{text}")
    with pytest.raises(ValueError, match=r"src_vocab .*vocab.*\n  tgt_vocab .*vocab"):
        commands.train(1, src_vocab=path, tgt_vocab=path)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"\xe4\xf6", "train_src, line 2: not UTF-8 (invalid continuation byte at byte 0): conver"),
        (
            "w\uffe8x".encode(),
            "train_src, line 2: n_src_feats is 0, so each word must have as many",
        ),
    ],
)
def test_a_line_that_cannot_be_read_is_named(commands: Any, line: bytes, text: str) -> None:
    options = commands.data(train_src="", train_tgt="w1\nw2\nw3\n")
    (commands.folder / "train_src").write_bytes(b"w1\n" + line + b"\nw2\n")
    with pytest.raises(CorpusError) as caught:
        commands.train(1, **options)
    assert text in str(caught.value)
