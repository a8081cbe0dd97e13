"""Which lines of a column file are words, and where words and tags stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from opennmt_sd.data.textfile import TextError
from opennmt_sd.tagger import conll
from opennmt_sd.tagger.columns import Columns, ConllError
from opennmt_sd.tagger.reading import read_table

GERMEVAL = """#\thttp://de.wikipedia.org/wiki/Manfred_Korfmann [2009-10-17]
1\tAufgrund\tO\tO
2\tseiner\tO\tO
3\tTroia-Ausgrabung\tO\tB-LOCpart

# n-tv.de vom 26.02.2005
1\tPeter\tB-PER\tO
2\tKorfmann\tI-PER\tO
"""
CONLLU = """# sent_id = 1
# text = Im Haus
1-2\tIm\t_\t_
1\tin\tADP\tO
# a note within a sentence
2\tdem\tDET\tO
3\tHaus\tNOUN\tB-LOC
3.1\tsteht\tVERB\t_

# sent_id = 2
1\tJa\tINTJ\tO
"""


def found(path: Path, columns: Columns | None = None) -> list[tuple[list[str], list[str]]]:
    return [(s.words, s.tags) for s in conll.sentences(read_table(path, columns))]


@pytest.mark.parametrize("separator", ["\t", "  "])
def test_running_numbers_are_no_words(write, separator: str) -> None:
    path = write(GERMEVAL.replace("\t", separator))
    assert found(path) == [
        (["Aufgrund", "seiner", "Troia-Ausgrabung"], ["O", "O", "B-LOCpart"]),
        (["Peter", "Korfmann"], ["O", "O"]),
    ]
    assert str(read_table(path)) == (
        "words in column 2 (the first holds running numbers), tags in column 4 (column 3 holds "
        "tags too: data.columns.tag=3 reads them)"
    )
    outer = Columns(tag=3)
    assert found(path, outer)[1] == (["Peter", "Korfmann"], ["B-PER", "I-PER"])
    assert str(read_table(path, outer)).endswith("tags in column 3")
    assert conll.read(path, outer).scheme == "iob2"


def test_what_is_no_word_in_conllu_is_passed_over(write) -> None:
    path = write(CONLLU)
    assert found(path) == [(["in", "dem", "Haus"], ["O", "O", "B-LOC"]), (["Ja"], ["O"])]
    lines = list(read_table(path).annotated([["O", "O", "B-X"], ["O"]]))
    assert lines == [
        "# sent_id = 1", "# text = Im Haus", "1-2\tIm\t_\t_\t_", "1\tin\tADP\tO\tO",
        "# a note within a sentence", "2\tdem\tDET\tO\tO", "3\tHaus\tNOUN\tB-LOC\tB-X",
        "3.1\tsteht\tVERB\t_\t_", "", "# sent_id = 2", "1\tJa\tINTJ\tO\tO",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "numbers",
    [
        [[1, 2, 3], [1, 2]],
        [[0, 1, 2], [0, 1]],  # from 0
        [[1, 2, 3], [4, 5]],  # through the file
        [[1], [1, 2]],
    ],
)
def test_ways_to_count(write, numbers: list[list[int]]) -> None:
    text = "\n".join("".join(f"{n} w{n} X O\n" for n in sentence) for sentence in numbers)
    assert found(write("-DOCSTART- -X- -X- O\n\n" + text)) == [
        ([f"w{n}" for n in sentence], ["O"] * len(sentence)) for sentence in numbers
    ]
    bare = "".join(f"{n}\tw{n}\n" for n in (1, 2))  # to predict: no tags
    assert found(write(bare)) == [(["w1", "w2"], [])]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 O\n2 O\n\n1 B-X\n2 I-X\n", [["1", "2"], ["1", "2"]]),  # beside them only tags
        ("1 X O\nof X O\n3 X O\n", [["1", "of", "3"]]),
        ("1996 CD O\n1997 CD O\n", [["1996", "1997"]]),  # they do not begin at 0 or 1
        ("1 CD O\n3 CD O\n", [["1", "3"]]),
        ("1 CD O\n\n1 CD O\n", [["1"], ["1"]]),  # never a second word
        ("1\n2\n3\n", [["1", "2", "3"]]),  # one column
        ("#1 X O\n#2 X O\n", [["#1", "#2"]]),
    ],
)
def test_numbers_may_be_words(write, text: str, words: list[list[str]]) -> None:
    assert [w for w, _ in found(write(text))] == words


@pytest.mark.parametrize(
    "numbers",
    [
        ["1", "2", "4"],  # a gap
        ["1", "1", "2"],  # the sentences lost their blank lines; or a count of sentences
        ["7", "7", "7"],
        ["5", "6", "7"],  # of another file
        ["3", "2", "1"],
        ["10", "20", "30"],
        ["1.", "2.", "3."],
        ["1_1", "1_2", "1_3"],
        ["2-1", "2-2", "2-3"],
        ["T1", "T2", "T3"],
        ["s1.w1", "s1.w2", "s1.w3"],
    ],
    ids=str,
)
def test_numbers_that_cannot_be_followed(write, numbers: list[str]) -> None:
    """They would be trained on as words. Both remedies work."""
    path = write("".join(f"{n}\tw{i}\tO\n" for i, n in enumerate(numbers)))
    with pytest.raises(ConllError) as error:
        found(path)
    first, second, third = map(repr, numbers)
    assert str(error.value) == (
        f"{path}: column 1 holds nothing but numbers ({first}, {second}, {third}, ..): if they are "
        "not the words, name the column of these, data.columns.word=2 or another; if they are, "
        "data.columns.word=1"
    )
    assert [w for w, _ in found(path, Columns(word=2))] == [["w0", "w1", "w2"]]
    assert [w for w, _ in found(path, Columns(word=1))] == [numbers]
    # One of them is a word: all may be.
    path = write("".join(f"{n}\tX\tO\n" for n in [*numbers, "of"]))
    assert [w for w, _ in found(path)] == [[*numbers, "of"]]


def test_columns_that_are_named(write) -> None:
    path = write("B-PER x Peter 7\nO x met 8\n")
    assert found(path, Columns(word=3, tag=1)) == [(["Peter", "met"], ["B-PER", "O"])]
    assert found(path, Columns(word=-2, tag=-4)) == [(["Peter", "met"], ["B-PER", "O"])]
    # Numbers as words, if that is what one wants; then "#" is a word as well.
    path = write("1 x O\n2 x O\n\n# x O\n")
    assert [w for w, _ in found(path, Columns(word=1))] == [["1", "2"], ["#"]]
    assert [w for w, _ in found(write("1 -DOCSTART- O\n\n1 a O\n2 b O\n"))] == [["a", "b"]]


def test_comments_of_any_kind(write) -> None:
    path = write("# id 7 domain=en\n#win _ _ O\n\n# id 8 domain=en\nParis _ _ B-LOC\n")
    assert [w for w, _ in found(path, Columns(comment="# id"))] == [["#win"], ["Paris"]]
    assert next(iter(read_table(path, Columns(comment="# id")).annotated([["O"], ["O"]]))) == (
        "# id 7 domain=en"
    )
    path = write("% a\nb O\n% c d e\n")
    assert [w for w, _ in found(path, Columns(comment="%"))] == [["b"]]


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        (
            "a O\n# a note\n",
            {},
            "{path}:2: 3 columns, but the first row (line 1) has 2: '# a note'. Every row needs "
            "the same columns, separated by blanks as there. If lines that begin with # are "
            "comments, say \"data.columns.comment='#'\"",
        ),
        (
            "a O\n",
            {"word": 3},
            "{path}: data.columns.word=3, but its rows have 2 columns: name one of these, or "
            "data.columns.word=null to let it be found",
        ),
        ("a O\n", {"tag": -3}, "{path}: data.columns.tag=-3, but its rows have 2 columns: name"),
        (
            "a O\n",
            {"tag": 1},
            "{path}: words and tags are both read from column 1: name the column of the words, "
            "data.columns.word=.., or of the tags, data.columns.tag=..",
        ),
        (
            "O x a\n",
            {"word": 3},
            "{path}:1: 3 columns: 'O x a'. Training and scores need a tag beside each word, in the "
            "last column or in that of data.columns.tag=..",
        ),
        (
            "a PER-B\n",
            {},
            "{path}:1: 'PER-B' in the last column is no tag: expected O, or B-, I-, E-, S-, L- or "
            "U- and a type. Write the letter first: B-PER",
        ),
        (
            "a O anna\nb B-X anna\n",
            {},
            "{path}:1: 'anna' in the last column is no tag: expected O, or B-, I-, E-, S-, L- or "
            "U- and a type. Column 2 holds tags: data.columns.tag=2 reads them",
        ),
        ("a x O\n", {"tag": 2}, "{path}:1: 'x' in column 2 is no tag: expected O, or B-, "),
        ("a B-\x1b[2J\n", {}, "{path}:1: 'B-\\x1b[2J' in the last column is no tag: expected"),
    ],
)
def test_what_cannot_be_read(write, text: str, columns: dict[str, int], message: str) -> None:
    path = write(text)
    with pytest.raises(ConllError) as error:
        conll.read(path, Columns(**columns))
    assert str(error.value).startswith(message.format(path=path))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"word": 0}, "word column 0: 1 is the first column, -1 the last"),
        ({"word": 2, "tag": 2}, "word and tag are both column 2: each needs its own"),
        ({"comment": ""}, "an empty comment mark would make every line a comment"),
        (
            {"encoding": "klingon"},
            "encoding 'klingon' is unknown: use a name that Python knows, such as utf-8, utf-16, "
            "latin-1 or cp1252",
        ),
        ({"encoding": "hex"}, "encoding 'hex' is unknown: use a name that Python knows, such as"),
    ],
)
def test_columns_that_cannot_be(columns: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as error:
        Columns(**columns)
    assert str(error.value).startswith(message)


def test_encodings(tmp_path: Path) -> None:
    path, text = tmp_path / "x", "Pétër B-PER\nà O\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "latin-1"):
        path.write_bytes(text.encode(encoding))
        assert found(path, Columns(encoding=encoding)) == [(["Pétër", "à"], ["B-PER", "O"])]
    for encoding in ("latin-1", "utf-16"):
        path.write_bytes(text.encode(encoding))
        with pytest.raises(TextError) as error:
            read_table(path)
        remedy = str(error.value).split("data.encoding=")[1].split()[0].strip(".,:;)")
        assert found(path, Columns(encoding=remedy)) == [(["Pétër", "à"], ["B-PER", "O"])]


def test_a_tag_with_a_blank_needs_tabs(write) -> None:
    assert list(read_table(write("a\tx\n")).annotated([["B-creative work"]])) == [
        "a\tx\tB-creative work"
    ]
    path = write("a x\n")
    with pytest.raises(ConllError) as error:
        list(read_table(path).annotated([["B-creative work"]]))
    assert str(error.value) == (
        f"{path}:1: the tag 'B-creative work' has a blank in it, which columns separated by blanks "
        "cannot hold: separate this file's columns by tabs"
    )


def test_one_word_again_and_again_is_told(write, caplog: pytest.LogCaptureFixture) -> None:
    path = write("doc1 The O\ndoc1 cat O\n\ndoc1 It B-X\ndoc1 sat O\n")
    conll.read(path)
    assert (
        f"{path}: within every sentence column 1 holds one and the same ('doc1'): if these are "
        "not its words, name their column, data.columns.word=.." in caplog.text
    )
    caplog.clear()
    conll.read(path, Columns(word=2))
    assert not caplog.records
