"""docs/tagger.md and docs/tutorial-tagger.md name what there is, and their code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from opennmt_sd.tagger import conll
from opennmt_sd.tagger.schemes import SCHEMES

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "tagger.md").read_text(encoding="utf-8")
TEXT = GUIDE + (DOCS / "tutorial-tagger.md").read_text(encoding="utf-8")


def test_every_key_is_one() -> None:
    pytest.importorskip("hydra", reason="hydra-core is not installed")
    from omegaconf import OmegaConf

    from opennmt_sd.config.tagger import TaggerRunConfig

    config = OmegaConf.structured(TaggerRunConfig)
    parts = "data|model|predict|trainer|optim"
    keys = set(re.findall(rf"\b((?:{parts})(?:\.[a-z_]+)+)(?=[=` '\"])", TEXT))
    assert {"data.columns.word", "data.encoding", "predict.html", "model.dropout.nr.p"} <= keys
    for key in keys:
        parent, _, name = key.rpartition(".")
        assert name in list(OmegaConf.select(config, parent).keys()), key


def test_every_scheme_is_shown() -> None:
    for scheme in SCHEMES:
        assert f"| {scheme.upper()} |" in GUIDE, scheme


def test_entities_of_spacy_become_training_data(tmp_path: Path, monkeypatch) -> None:
    spacy = pytest.importorskip("spacy", reason="the code needs spaCy")
    from spacy.tokens import DocBin, Span

    code = next(c for c in re.findall(r"```python\n(.*?)```", GUIDE, re.S) if "DocBin" in c)
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    doc = nlp("Peter Blackburn met  Mary. Paris!")
    doc.ents = [Span(doc, 0, 2, "PER"), Span(doc, 4, 5, "PER"), Span(doc, 6, 7, "LOC")]
    monkeypatch.chdir(tmp_path)
    DocBin(docs=[doc]).to_disk("train.spacy")
    exec(code, {})
    corpus = conll.read("train.conll")
    assert [(" ".join(s.words), s.tags) for s in corpus.sentences] == [
        ("Peter Blackburn met Mary .", ["B-PER", "I-PER", "O", "B-PER", "O"]),
        ("Paris !", ["B-LOC", "O"]),
    ]
