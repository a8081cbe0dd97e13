"""Which files hold training, validation and test data, and what is done before training."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opennmt_sd.data import WNUT17
from opennmt_sd.tagger import conll, glove, schemes
from opennmt_sd.tagger.columns import Columns, ConllError
from opennmt_sd.tagger.conll import Corpus
from opennmt_sd.tagger.vocabulary import Vocabulary, normalise

log = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")
# What a folder may call its three files.
LAYOUTS = (
    ("train.conll", "dev.conll", "test.conll"),
    ("train.txt", "valid.txt", "test.txt"),
    ("eng.train", "eng.testa", "eng.testb"),
)


@dataclass(frozen=True)
class Corpora:
    """Training and validation data, and test data where they are wanted."""

    train: Corpus
    valid: Corpus
    test: Corpus | None = None

    @property
    def there(self) -> dict[str, Corpus]:
        """The corpora that there are, by their names."""
        return {name: corpus for name, corpus in vars(self).items() if corpus is not None}

    @classmethod
    def folder(
        cls, path: Path | str | None = None, columns: Columns | None = None, *, test: bool = True
    ) -> Corpora:
        """Read a folder with the files of one of :data:`LAYOUTS`; None is the WNUT-17 sample.

        Args:
            test: whether the test data are wanted.

        Raises:
            ConllError: it holds none of the layouts, or what :meth:`files` raises.
        """
        return cls.files(**files_in(path, SPLITS if test else SPLITS[:2]), columns=columns)

    @classmethod
    def files(
        cls,
        train: Path | str,
        valid: Path | str,
        test: Path | str | None = None,
        *,
        columns: Columns | None = None,
    ) -> Corpora:
        """Read the files, each in a tag scheme of its own; ``columns``: how they are read.

        Raises:
            ConllError: a broken file, or training data without an entity.
        """
        paths = (train, valid, test)
        corpora = cls(*(conll.read(path, columns) for path in paths if path is not None))
        if corpora.train.scheme is None:
            raise ConllError(
                f"{corpora.train.name} holds no entity (every tag is O): there is nothing to learn"
            )
        known = _types(corpora.train)
        for name, corpus in corpora.there.items():
            if name != "train":
                tell_of_new_types(corpus, known)
        return corpora

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


def files_in(path: Path | str | None = None, needed: Sequence[str] = SPLITS) -> dict[str, Path]:
    """Return a folder's files by what they hold; None is the WNUT-17 sample.

    Args:
        needed: what must be there, of :data:`SPLITS`.

    Raises:
        ConllError: no layout of :data:`LAYOUTS` is there.
    """
    folder = WNUT17 if path is None else Path(path)
    layouts = [{s: n for s, n in zip(SPLITS, names) if s in needed} for names in LAYOUTS]
    for names in layouts:
        if all((folder / name).is_file() for name in names.values()):
            return {split: folder / name for split, name in names.items()}
    known = "; or ".join(", ".join(names.values()) for names in layouts)
    what = "the three files" if len(needed) == len(SPLITS) else f"the {' and '.join(needed)} data"
    named = " ".join(f"data.{split}=.." for split in needed)
    raise ConllError(
        f"{folder} does not hold {what} of a data set: expected {known}. Or name "
        f"{'it' if len(needed) == 1 else 'them'}: {named}"
    )


def tell_of_new_types(corpus: Corpus, known: Iterable[str]) -> None:
    """Warn of entities whose type is not among those that are known."""
    known = set(known)
    for kind, count in _types(corpus).items():
        if kind not in known:
            log.warning(
                "%s has %d entities of type %s, which the training data lack: they count "
                "as missed", corpus.name, count, kind,
            )  # fmt: skip
    if corpus.scheme is None:
        log.warning("%s holds no entity: its F1 is 0 by definition", corpus.name)


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
