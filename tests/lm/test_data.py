"""Reading a corpus, and what is said of a bad one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from opennmt_sd.lm import Corpus, CorpusError, Reading

WriteTexts = Callable[..., Path]


def words_of(corpus: Corpus, split: str) -> str:
    return " ".join(corpus.vocabulary.words[i] for i in getattr(corpus, split).tolist())


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(CorpusError) as error:
        read()
    return str(error.value)


# ---- what is read ----


def test_a_folder_of_three_texts(write_texts: WriteTexts) -> None:
    folder = write_texts(train=["b a b", "", "c b"], valid=["a", "c c"], test=["b", "b"])
    corpus = Corpus.load(folder)
    # The most frequent first; <eos> three times too, and before b in code point order.
    assert corpus.vocabulary.words == ("<eos>", "b", "a", "c")
    assert words_of(corpus, "train") == "b a b <eos> <eos> c b <eos>"
    assert words_of(corpus, "valid") == "a <eos> c c <eos>"
    assert words_of(corpus, "test") == "b <eos> b <eos>"
    assert repr(corpus) == "Corpus: 4 types; words: train 8, valid 5, test 4"


def test_three_paths(folder: Path) -> None:
    corpus = Corpus.files(folder / "train.txt", folder / "test.txt", folder / "valid.txt")
    other = Corpus.load(folder)
    assert corpus.vocabulary == other.vocabulary
    assert corpus.valid.tolist() == other.test.tolist()


def test_lines_end_at_line_feeds_alone(write_texts: WriteTexts) -> None:
    folder = write_texts(train=["a\u2028b\x0bc", "a b\r"], valid=["a", "b"], test=["c", "a"])
    (folder / "valid.txt").write_bytes(b"\xef\xbb\xbfa\nb")  # a mark, and no line feed at the end
    corpus = Corpus.load(folder)
    assert words_of(corpus, "train") == "a b c <eos> a b <eos>"
    assert words_of(corpus, "valid") == "a <eos> b <eos>"


def test_without_a_path_it_is_the_sample() -> None:
    corpus = Corpus.load()
    assert repr(corpus) == ("Corpus: 4,520 types; words: train 262,413, valid 15,831, test 11,993")


def test_unknown_words_become_unk_and_are_counted(write_texts: WriteTexts) -> None:
    corpus = Corpus.load(write_texts(valid=["the emu sat", "an emu"]))
    assert words_of(corpus, "valid") == "the <unk> sat <eos> <unk> <unk> <eos>"
    assert corpus.unknown == {"train": 0, "valid": 3, "test": 0}
    assert repr(corpus).endswith("3 unknown in valid")
    folder = corpus.paths["train"].parent
    assert corpus.described() == [
        f"train: {folder}/train.txt, 204 words with <eos>, 5.88% <unk>",
        f"valid: {folder}/valid.txt, 7 words with <eos>, 42.86% <unk>",
        f"test: {folder}/test.txt, 33 words with <eos>, 0.00% <unk>",
        "Vocabulary of 10 words, with <eos> and <unk>, which stands for 0 of train, 3 of valid, 0 "
        "of test: all of them count as one and the same, so perplexity compares only with others "
        "of this vocabulary",
    ]


def test_ptb(ptb: Path) -> None:
    corpus = Corpus.load(ptb)
    assert repr(corpus) == ("Corpus: 10,000 types; words: train 929,589, valid 73,760, test 82,430")
    assert corpus.vocabulary.words[:3] == ("the", "<unk>", "<eos>")


# ---- what is refused ----


@pytest.mark.parametrize("kind", ["folder", "file", "name"])
def test_a_missing_file(folder: Path, kind: str) -> None:
    if kind == "folder":
        assert refusal(lambda: Corpus.load(folder / "x")) == (
            f"there is no folder {folder / 'x'}: check the path"
        )
    elif kind == "file":
        (folder / "valid.txt").unlink()
        assert refusal(lambda: Corpus.load(folder)) == (
            f"{folder / 'valid.txt'} is not there: a corpus is three text files. Name a folder "
            "with train.txt, valid.txt and test.txt, or with PTB's ptb.train.txt, ptb.valid.txt "
            "and ptb.test.txt, or all three files; trainer.test=false does without test"
        )
    else:
        text = refusal(lambda: Corpus.load(folder / "train.txt"))
        assert text == (
            f"{folder / 'train.txt'} is a file: name the folder that holds the three texts"
        )


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", " is empty: a corpus needs text"),
        (b"\n \r\n", " is empty: a corpus needs text"),
        (b"the cat\rsat\r", ": its lines end with carriage returns alone, as on old Macs, and line "
         "feeds are needed: `tr '\\r' '\\n' < {name} > unix-{name}`"),
        (b"the cat\nsat\xe9 on\n", ", line 2: byte 0xe9 (number 4 of the line) is not UTF-8. As "
         "Windows-1252 the line reads 'sat\xe9 on'. If that is right, convert it"),
        ("the cat\nsat on\n".encode("utf-16"), " is UTF-16 text, read as UTF-8: convert it"),
        (b"the\0cat\nsat on it all day\n", ", line 1: a NUL byte (number 4 of the line)"),
    ],
    ids=["empty", "blank", "old Mac", "not UTF-8", "UTF-16", "NUL"],
)  # fmt: skip
@pytest.mark.parametrize("level", ["word", "char"])
def test_a_bad_file(folder: Path, split: str, content: bytes, said: str, level: str) -> None:
    path = folder / f"{split}.txt"
    path.write_bytes(content)
    text = refusal(lambda: Corpus.load(folder, Reading(level)))
    assert text.startswith(f"{path}{said.format(name=path.name)}")


def test_a_folder_in_the_place_of_a_file(folder: Path) -> None:
    text = refusal(lambda: Corpus.files(folder / "train.txt", folder, folder / "test.txt"))
    assert text == f"{folder} is a folder: name a text file"


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_word_outside_the_vocabulary(write_texts: WriteTexts, split: str) -> None:
    folder = write_texts(train=["a cat sat on the mat", "the dog ran"], **{
        "valid": ["a dog"], "test": ["a cat"],
        split: ["the cat", "the emu ran", "an emu"]})  # fmt: skip
    assert refusal(lambda: Corpus.load(folder, Reading(min_count=1))) == (
        f"{folder / f'{split}.txt'}, line 2: 'emu' is not among the 9 words of the training text "
        "(3 such words in the file). A model can only score what it knows: "
        "data.min_count=2 in its training makes <unk> of what is there once, and of all that is "
        "unknown later"
    )


def test_a_ptb_that_is_none(write_texts: WriteTexts) -> None:
    folder = write_texts("ptb.{}.txt")
    lines = refusal(lambda: Corpus.load(folder)).split("\n")
    assert lines[0] == (
        f"{folder / 'ptb.train.txt'} has 36 lines and 168 words, PTB's has 42,068 and 887,521"
    )
    assert lines[1].endswith("has 9 lines and 33 words, PTB's has 3,370 and 70,390")
    assert lines[3] == (
        "`python scripts/prepare_ptb.py --help` says how to get PTB. A text of your own belongs "
        "into train.txt, valid.txt and test.txt (without `ptb.`), which may have any size"
    )


def test_a_part_of_ptb(write_texts: WriteTexts) -> None:
    folder = write_texts("ptb.{}.txt")
    (folder / "ptb.train.txt").unlink()
    assert refusal(lambda: Corpus.load(folder)).startswith(
        f"{folder / 'ptb.train.txt'} is not there: a corpus is three text files"
    )


def test_a_ptb_of_the_right_counts_and_other_words(ptb: Path, tmp_path: Path) -> None:
    for path in ptb.iterdir():
        text = path.read_text(encoding="utf-8")
        (tmp_path / path.name).write_text(text.replace(" pierre ", " peter "), encoding="utf-8")
    text = refusal(lambda: Corpus.load(tmp_path))
    assert text.startswith(
        f"{tmp_path / 'ptb.train.txt'} has 9,999 different words with <eos>, PTB has 10,000. "
    )
