"""Storing, loading, and tagging files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from opennmt_sd import DropoutPattern
from opennmt_sd.data.textfile import TextError
from opennmt_sd.tagger import files
from opennmt_sd.tagger.card import Card
from opennmt_sd.tagger.columns import Columns, ConllError
from opennmt_sd.tagger.corpora import Corpora
from opennmt_sd.tagger.scores import score
from opennmt_sd.tagger.trained import Trained, file_of
from opennmt_sd.training import checkpoint
from opennmt_sd.training.checkpoint import CheckpointError

WORDS = [["Mary", "Smith", "met", "Pétër", "☃"], ["New", "York"]]  # with characters never seen


def test_store_and_load(trained: Trained, tmp_path: Path) -> None:
    trained.save(tmp_path / "tagger.pt")
    for place in (tmp_path, tmp_path / "tagger.pt"):
        again = Trained.load(place)
        assert again.tags(WORDS) == trained.tags(WORDS)
        assert again.vocabulary == trained.vocabulary
        assert not again.model.training
    assert Trained.from_bytes(trained.to_bytes()).tags(WORDS) == trained.tags(WORDS)
    assert trained.types == ["LOC", "MISC", "ORG", "PER"]


def test_what_cannot_be_loaded(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        Trained.load(tmp_path / "tagger.pt")
    with pytest.raises(CheckpointError) as error:
        Trained.load(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} is a folder without a tagger.pt or best.pt: name the folder of a tagger's "
        "training, or a checkpoint"
    )
    trained.save(tmp_path / "tagger.pt")
    data = (tmp_path / "tagger.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[:-500])
    with pytest.raises(CheckpointError, match="is cut short, damaged or no checkpoint"):
        Trained.load(tmp_path / "cut.pt")
    for broken in (b"", b"abc", trained.to_bytes()[:-500]):
        with pytest.raises(CheckpointError, match=r"bytes are no tagger: take what to_bytes gave"):
            Trained.from_bytes(broken)
    checkpoint.write(tmp_path / "lm.pt", {"model": {}, "averaging": None, "constants": {}})
    with pytest.raises(CheckpointError) as error:
        Trained.load(tmp_path / "lm.pt")
    assert str(error.value) == (
        f"{tmp_path / 'lm.pt'} is not of a tagger: take a tagger.pt, or a best.pt that "
        "train_tagger wrote"
    )


@pytest.mark.parametrize(
    ("keys", "value", "text"),
    [
        (["constants"], None, "it has no entry 'constants'"),
        (["model"], None, "it has no entry 'model'"),
        (["averaging"], None, "it has no entry 'averaging'"),
        (["constants", "tagger", "vocabulary"], None, "it has no entry 'vocabulary'"),
        (["constants", "tagger", "config"], None, "it has no entry 'config'"),
        (["constants", "tagger", "vocabulary", "tags"], None, "TypeError: "),
        (["constants", "tagger", "config", "hidden"], "many", "TypeError: "),
        (["constants", "tagger"], [], "TypeError: "),
        (["constants", "tagger", "config", "hidden"], 6, "RuntimeError: "),
    ],
    ids=str,
)
def test_a_checkpoint_made_by_hand(
    trained: Trained, tmp_path: Path, keys: list[str], value: Any, text: str
) -> None:
    trained.save(tmp_path / "tagger.pt")
    state = torch.load(tmp_path / "tagger.pt", weights_only=True)
    *above, last = keys
    place = state
    for key in above:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    torch.save(state, tmp_path / "tagger.pt")
    with pytest.raises(CheckpointError) as error:
        Trained.load(tmp_path)
    message = str(error.value)
    assert message.startswith(
        f"{tmp_path / 'tagger.pt'} does not hold what this trainer writes: {text}"
    )
    assert "It was made by hand" in message
    assert "\n" not in message


def test_a_folder_means_its_tagger_or_else_its_best_checkpoint(
    trained: Trained, tmp_path: Path
) -> None:
    trained.save(tmp_path / "best.pt")
    assert file_of(tmp_path) == tmp_path / "best.pt"
    assert Trained.load(tmp_path).types == trained.types
    trained.save(tmp_path / "tagger.pt")
    assert file_of(tmp_path) == file_of(tmp_path / "tagger.pt") == tmp_path / "tagger.pt"


def test_tags_that_cannot_be_printed_are_refused(trained: Trained, tmp_path: Path) -> None:
    state = trained._state()
    tags = state["constants"]["tagger"]["vocabulary"]["tags"]
    tags[tags.index("S-ORG")] = "S-\x1b[2J"
    checkpoint.write(tmp_path / "tagger.pt", state)
    with pytest.raises(CheckpointError) as error:
        Trained.load(tmp_path)
    assert str(error.value) == (
        f"{tmp_path / 'tagger.pt'} holds 'S-\\x1b[2J' among its tags, which train_tagger never "
        "writes: it is damaged, or somebody made it by hand. Take another one"
    )


def test_conll_in_conll_out(trained: Trained, write) -> None:
    text = "-DOCSTART- -X- O O\n\nMary N I-PER\nSmith N I-PER\n\nNew N O\nYork N I-LOC\n"
    tagged = files.tag(trained, write(text))
    assert tagged.text == (
        "-DOCSTART- -X- O O\n\nMary N I-PER I-PER\nSmith N I-PER I-PER\n\nNew N O I-LOC\n"
        "York N I-LOC I-LOC\n"
    )
    assert tagged.scores is not None
    assert (tagged.scores.all.precision, tagged.scores.all.support) == (50, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mary\nSmith\n", "Mary B-PER\nSmith I-PER\n"),  # one column: words alone
        ("Mary\tNNP\nSmith\tNNP\n", "Mary\tNNP\tB-PER\nSmith\tNNP\tI-PER\n"),
        ("", ""),
        ("\n\n", "\n\n"),
    ],
)
def test_without_gold_tags(trained: Trained, write, text: str, expected: str) -> None:
    tagged = files.tag(trained, write(text))
    assert tagged.text == expected
    assert tagged.scores is None


def test_a_broken_file_is_told(trained: Trained, write) -> None:
    with pytest.raises(ConllError, match=":2: 2 columns, but the first row"):
        files.tag(trained, write("a\nb c\n"))
    with pytest.raises(ValueError, match="format 'xml' is unknown: use one of auto, conll, text"):
        files.tag(trained, write("a\n"), kind="xml")


def test_plain_text_in(trained: Trained, write) -> None:
    pytest.importorskip("spacy", reason="plain text needs spaCy")
    tagged = files.tag(trained, write("Mary Smith met.\nNew York\n", "a.txt"))
    assert tagged.sentences[0] == ["Mary", "Smith", "met", "."]
    assert tagged.text.startswith("Mary\tB-PER\nSmith\tI-PER\nmet\tO\n")
    assert files.tag(trained, write(" \n\n", "empty.txt")).text == ""
    assert files.tag(trained, write("\ufeffMary", "bom.txt")).sentences == [["Mary"]]
    latin = write("", "latin.txt")
    latin.write_bytes("Pétër".encode("latin-1"))
    with pytest.raises(TextError, match=r"latin.txt, line 1: .* is not UTF-8.*=cp1252"):
        files.tag(trained, latin)
    with pytest.raises(ImportError, match="xx-none"):
        files.tag(trained, write("Mary", "a.txt"), language="xx-none")


def test_columns_in_a_txt_file_are_columns(trained: Trained, write) -> None:
    text = "Mary I-PER\nmet O\n\nParis I-LOC\n"
    tagged = files.tag(trained, write(text, "test.txt"))
    assert tagged.sentences == [["Mary", "met"], ["Paris"]]
    for text in ("Vitamin O", "We met O\nin Paris\n", "Mary\nPeter\n"):
        assert files.is_text(write(text, "a.txt"), "auto"), text
    assert files.is_text(write("Mary O\nmet O\n", "a.txt"), "text")


def test_tags_of_no_scheme_are_no_obstacle(
    trained: Trained, write, caplog: pytest.LogCaptureFixture
) -> None:
    tagged = files.tag(trained, write("Mary\tB-PER\nSmith\tI-PER\nmet\tO\nParis\tI-LOC\n"))
    assert tagged.text.splitlines()[0] == "Mary\tB-PER\tB-PER"
    assert tagged.scores is not None
    assert tagged.scores.all.support == 2
    assert "mixes tag schemes" in caplog.text
    assert "Here they are read as conlleval does, and IOB2 comes out" in caplog.text


def test_bilou_is_read_scored_and_written(trained: Trained, write) -> None:
    text = "Mary B-PER\nSmith L-PER\n\nParis U-LOC\nmet O\n"
    tagged = files.tag(trained, write(text))
    assert tagged.text == ("Mary B-PER B-PER\nSmith L-PER L-PER\n\nParis U-LOC U-LOC\nmet O O\n")
    assert tagged.scores is not None
    assert (tagged.scores.all.f1, tagged.scores.all.support, tagged.scores.accuracy) == (
        100, 2, 100,
    )  # fmt: skip


def test_tags_that_cannot_be_read_are_named(
    trained: Trained, write, caplog: pytest.LogCaptureFixture
) -> None:
    path = write("Mary PER-B\nSmith PER-I\n")
    tagged = files.tag(trained, path)
    assert tagged.text == "Mary PER-B B-PER\nSmith PER-I I-PER\n"
    assert tagged.scores is None
    assert (
        f"{path}:1: 'PER-B' in the last column is no tag: expected O, or B-, I-, E-, S-, L- or U- "
        "and a type. Write the letter first: B-PER. So there are no scores, and IOB2 comes out"
    ) in caplog.text
    with pytest.raises(ConllError, match="'PER-B' in the last column is no tag"):
        files.tag(trained, path, columns=Columns(tag=2))


def test_columns_of_the_input(trained: Trained, write) -> None:
    numbered = "# Mary\n1\tMary\tB-PER\tO\n2\tSmith\tI-PER\tO\n"
    tagged = files.tag(trained, write(numbered), columns=Columns(tag=3))
    assert tagged.text == ("# Mary\n1\tMary\tB-PER\tO\tB-PER\n2\tSmith\tI-PER\tO\tI-PER\n")
    assert tagged.scores is not None
    assert tagged.scores.all.f1 == 100
    latin = write("", "latin.conll")
    latin.write_bytes("Pétër O\n".encode("latin-1"))
    assert files.tag(trained, latin, columns=Columns(encoding="latin-1")).sentences == [["Pétër"]]


def test_card(trained: Trained, corpora: Corpora) -> None:
    gold = corpora.train.in_scheme("bioes")
    scores = score(gold, trained.tags([s.words for s in corpora.train.sentences]))
    card = str(Card(trained, corpora, {"valid": scores}, "glove.txt", 0.5, "seed: 1\n"))
    for part in (
        "| train | `", "| iob1 |", "which cover 50.0% of the training words", "### valid",
        "| **all** | 100.00 | 100.00 | 100.00 | 8 |", "Dropout: none.", "linear-chain CRF",
        "```yaml\nseed: 1\n```", 'nlp.add_pipe("structured_ner"', "LOC, MISC, ORG, PER",
    ):  # fmt: skip
        assert part in card, part
    assert "### test" not in card


def test_a_card_shows_names_as_they_are(trained: Trained, corpora: Corpora) -> None:
    gold = [["B-<script>x|y*", "O"]]
    corpus = replace(corpora.train, name="a`b|c")
    card = str(
        Card(
            trained, replace(corpora, train=corpus), {"valid": score(gold, gold)}, "v", 0, "a: ```"
        )
    )
    assert "| &lt;script&gt;x\\|y\\* | 100.00 |" in card
    assert "| train | ``a`b\\|c`` |" in card
    assert "````yaml\na: ```\n````\n" in card


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_card_tells_all_that_is_dropped(make, corpora: Corpora, cell: str) -> None:
    task = make(cell=cell, char_dropout=0.5, projection=4, input_dropout=0.3)
    card = str(Card(Trained(task.model, task.vocabulary), corpora, {}, None, 0.0, ""))
    assert f"characters (8 filters of 3); bidirectional {cell.upper()}, 1 layer of 10 " in card
    assert f"layer of 4; linear-chain CRF. Dropout: input of the {cell.upper()} 0.3 " in card
    assert "(Case III); characters 0.5 (ordinary)." in card
    task = make(cell=cell, input_dropout=DropoutPattern(0.3, count="exact"))
    card = str(Card(Trained(task.model, task.vocabulary), corpora, {}, None, 0.0, ""))
    assert f"input of the {cell.upper()} 0.3 (Case III, exact)" in card


def test_a_checkpoint_of_the_trainer_serves_too(trained: Trained, tmp_path: Path) -> None:
    average = {name: torch.zeros_like(p) for name, p in trained.model.named_parameters()}
    state = {"model": trained.model.state_dict(), "constants": trained.constants()}
    checkpoint.write(tmp_path / "best.pt", {**state, "averaging": None, "config": {}})
    assert Trained.load(tmp_path / "best.pt").tags(WORDS) == trained.tags(WORDS)
    checkpoint.write(tmp_path / "best.pt", {**state, "averaging": {"average": average}})
    assert not Trained.load(tmp_path / "best.pt").model.output.weight.any()
