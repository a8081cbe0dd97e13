"""Which files hold training, validation and test data, and what is done before training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opennmt_sd.data import WNUT17
from opennmt_sd.tagger import conll, glove, schemes
from opennmt_sd.tagger.columns import Columns, ConllError
from opennmt_sd.tagger.conll import Corpus
from opennmt_sd.tagger.vocabulary import Vocabulary, normalise

log = logging.getLogger(__name__)

# What a folder may call its three files.
LAYOUTS = (
    ("train.conll", "dev.conll", "test.conll"),
    ("train.txt", "valid.txt", "test.txt"),
    ("eng.train", "eng.testa", "eng.testb"),
)


@dataclass(frozen=True)
class Corpora:
    """Training, validation and test data."""

    train: Corpus
    valid: Corpus
    test: Corpus

    @classmethod
    def folder(cls, path: Path | str | None = None, columns: Columns | None = None) -> Corpora:
        """Read a folder with the files of one of :data:`LAYOUTS`; None is the WNUT-17 sample.

        Raises:
            ConllError: it holds none of the layouts, or what :meth:`files` raises.
        """
        folder = WNUT17 if path is None else Path(path)
        for names in LAYOUTS:
            if all((folder / name).is_file() for name in names):
                return cls.files(*(folder / name for name in names), columns=columns)
        known = "; or ".join(", ".join(names) for names in LAYOUTS)
        raise ConllError(
            f"{folder} does not hold the three files of a data set: expected {known}. Or name "
            "them: data.train=.. data.valid=.. data.test=.."
        )

    @classmethod
    def files(
        cls,
        train: Path | str,
        valid: Path | str,
        test: Path | str,
        *,
        columns: Columns | None = None,
    ) -> Corpora:
        """Read three files, each in a tag scheme of its own; ``columns``: how they are read.

        Raises:
            ConllError: a broken file, or training data without an entity.
        """
        corpora = cls(*(conll.read(path, columns) for path in (train, valid, test)))
        if corpora.train.scheme is None:
            raise ConllError(
                f"{corpora.train.name} holds no entity (every tag is O): there is nothing to learn"
            )
        corpora._tell_of_new_types()
        return corpora

    def _tell_of_new_types(self) -> None:
        known = _types(self.train)
        for corpus in (self.valid, self.test):
            for kind, count in _types(corpus).items():
                if kind not in known:
                    log.warning(
                        "%s has %d entities of type %s, which the training data lack: they count "
                        "as missed", corpus.name, count, kind,
                    )  # fmt: skip
            if corpus.scheme is None:
                log.warning("%s holds no entity: its F1 is 0 by definition", corpus.name)

    def vocabulary(
        self,
        *,
        scheme: str = "bioes",
        vectors: Mapping[str, Any] | None = None,
        lower: bool = True,
        digits: bool = False,
    ) -> Vocabulary:
        """Build the vocabulary of the training data and of the words that have a vector.

        Raises:
            ValueError: an unknown scheme.
        """
        return Vocabulary.build(
            (sentence.words for sentence in self.train.sentences),
            self.train.in_scheme(schemes.check_scheme(scheme)),
            scheme=scheme,
            vectors=vectors or (),
            lower=lower,
            digits=digits,
        )


def _types(corpus: Corpus) -> dict[str, int]:
    counts: dict[str, int] = {}
    for sentence in corpus.sentences:
        for entity in schemes.entities(sentence.tags):
            counts[entity.type] = counts.get(entity.type, 0) + 1
    return counts


def read_vectors(path: Path | str, dim: int) -> glove.Vectors:
    """Read GloVe's vectors; see :func:`opennmt_sd.tagger.glove.read`."""
    vectors = glove.read(path, dim)
    log.info("%s: %s vectors of %d numbers", path, f"{len(vectors):,}", dim)
    return vectors


def coverage(corpus: Corpus, vocabulary: Vocabulary, vectors: Mapping[str, Any]) -> float:
    """Return the share of a corpus's words, each time they occur, with a pretrained vector."""
    found = sum(
        normalise(word, vocabulary.lower, vocabulary.digits) in vectors
        for sentence in corpus.sentences
        for word in sentence.words
    )
    return found / max(corpus.words, 1)
