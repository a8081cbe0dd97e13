"""The spaCy component ``structured_ner``: a trained tagger that sets ``doc.ents``.

spaCy finds it through the entry point ``spacy_factories``; nothing need be imported::

    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("structured_ner", config={"path": "runs/tagger/mine"})
    nlp("Peter Blackburn flew to Brussels.").ents

``nlp.to_disk`` stores the tagger with the pipeline, and ``spacy.load`` needs nothing else. In a
training configuration of spaCy's, ``[initialize.components.structured_ner] path = ..`` does the
same. ``nlp.pipe(n_process=2)`` works: see :mod:`opennmt_sd.ops.forked`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Optional

from opennmt_sd.extras import extra
from opennmt_sd.tagger import page
from opennmt_sd.tagger.schemes import Entity, encode, entities
from opennmt_sd.tagger.trained import FILE, Trained
from opennmt_sd.training.checkpoint import CheckpointError

with extra("tagger"):
    from spacy.language import Language
    from spacy.tokens import Doc, Span, Token
    from spacy.training import Example
    from spacy.util import (
        filter_spans,
        get_minor_version_range,
        load_config,
        minibatch,
        split_requirement,
    )

NAME = "structured_ner"
PACKAGE = "opennmt_sd"


class StructuredNER:
    """Sets the entities of documents.

    A document's sentences are tagged one by one where it has any (a ``sentencizer`` or a parser
    before this component), else the document is one sentence. White space is no word: the tagger
    does not see it, and an entity goes on across it. Entities that are there already
    stay, and win where they overlap.

    Args:
        path: of a trained tagger (see :meth:`Trained.load`), read at once; None where
            ``initialize`` or ``from_disk`` follows.
        batch_size: sentences that are decoded together.
        name: in the pipeline.

    Raises:
        CheckpointError: there is no tagger at ``path``, or it cannot be read.
        ValueError: ``batch_size`` is less than 1.
    """

    def __init__(
        self, path: Path | str | None = None, batch_size: int = 64, name: str = NAME
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"{name}: batch_size must be at least 1 sentence, got {batch_size}")
        self.batch_size, self.name = batch_size, name
        self._trained = None if path is None else self._load(path)

    def _load(self, path: Path | str) -> Trained:
        path = Path(path).absolute()
        if path.exists():
            return Trained.load(path)
        raise CheckpointError(
            f"{self.name}: {path}: there is no such checkpoint. (A saved pipeline has its own: "
            f"spacy.load(.., config={{'components.{self.name}.path': None}}) looks for no other)"
        )

    @property
    def trained(self) -> Trained:
        """The tagger.

        Raises:
            CheckpointError: there is none.
        """
        if self._trained is None:
            raise CheckpointError(
                f"{self.name} has no tagger: name one, "
                f'nlp.add_pipe("{NAME}", config={{"path": ..}}), or in a training configuration '
                f"[initialize.components.{self.name}] path = .."
            )
        return self._trained

    @property
    def labels(self) -> tuple[str, ...]:
        """The types of entity; none as long as there is no tagger (spaCy asks that early)."""
        try:
            return tuple(self.trained.types)
        except CheckpointError:
            return ()

    def __call__(self, doc: Doc) -> Doc:
        self._annotate([doc])
        return doc

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Annotate documents in groups of ``batch_size``, whose sentences are decoded together."""
        for docs in minibatch(stream, batch_size):
            self._annotate(docs)
            yield from docs

    def _annotate(self, docs: list[Doc]) -> None:
        sentences = [_words(span) for doc in docs for span in _sentences(doc)]
        found = self.trained.tags([[t.text for t in s] for s in sentences], self.batch_size)
        ours: dict[int, list[Span]] = {id(doc): [] for doc in docs}
        for words, tags in zip(sentences, found):
            for kind, start, end in entities(tags):
                doc = words[start].doc
                span = Span(doc, words[start].i, words[end - 1].i + 1, label=kind)
                ours[id(doc)].append(span)
        for doc in docs:
            taken = {token.i for entity in doc.ents for token in entity}
            free = [s for s in ours[id(doc)] if not any(t.i in taken for t in s)]
            doc.ents = filter_spans([*doc.ents, *free])

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],  # noqa: ARG002 - spaCy's protocol
        *,
        nlp: Language | None = None,  # noqa: ARG002
        path: Optional[str] = None,  # noqa: UP045 - spaCy's validation reads it on Python 3.10
    ) -> None:
        """Load the tagger of ``[initialize.components]``; without a path, keep the one there is.

        Raises:
            CheckpointError: there is none, or it cannot be read.
        """
        if path is not None:
            self._trained = self._load(path)
        self.trained  # noqa: B018 - raises where there is none

    def score(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """Return spaCy's entity scores, for ``nlp.evaluate``."""
        from spacy.scorer import get_ner_prf

        return get_ner_prf(examples)

    def to_disk(self, path: Path | str, *, exclude: Iterable[str] = ()) -> None:  # noqa: ARG002
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        self.trained.save(folder / FILE)
        _forget_path(folder)

    def from_disk(self, path: Path | str, *, exclude: Iterable[str] = ()) -> StructuredNER:  # noqa: ARG002
        self._trained = Trained.load(path)
        return self

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:  # noqa: ARG002
        return self.trained.to_bytes()

    def from_bytes(self, data: bytes, *, exclude: Iterable[str] = ()) -> StructuredNER:  # noqa: ARG002
        self._trained = Trained.from_bytes(data)
        return self


def _sentences(doc: Doc) -> list[Span]:
    if not len(doc):
        return []
    return list(doc.sents) if doc.has_annotation("SENT_START") else [doc[:]]


def _words(span: Span) -> list[Token]:
    return [token for token in span if not token.is_space]


@Language.factory(
    NAME,
    assigns=["doc.ents", "token.ent_iob", "token.ent_type"],
    default_config={"path": None, "batch_size": 64},
    default_score_weights={"ents_f": 1.0, "ents_p": 0.0, "ents_r": 0.0, "ents_per_type": None},
)
def make(nlp: Language, name: str, path: str | None, batch_size: int) -> StructuredNER:
    """Make the component, and note in the pipeline's meta data that it needs this package."""
    component = StructuredNER(path, batch_size, name)
    needs = nlp.meta.setdefault("requirements", [])
    if not any(split_requirement(need)[0] == PACKAGE for need in needs):
        needs.append(f"{PACKAGE}[tagger]{get_minor_version_range(version(PACKAGE))}")
    return component


def _forget_path(folder: Path) -> None:
    """Take the path of the tagger out of the configuration that spaCy wrote beside its folder.

    The tagger is in the folder now, and where it once lay means nothing on another machine.
    """
    file = folder.parent / "config.cfg"
    if not file.exists():
        return
    config = load_config(file, interpolate=False)
    ours = config.get("components", {}).get(folder.name, {})
    if ours.get("factory") == NAME and ours.get("path") is not None:
        ours["path"] = None
        config.to_disk(file, interpolate=False)


def pipeline(trained: Trained, language: str = "en", batch_size: int = 64) -> Language:
    """Make a pipeline of a language's tokenizer, sentences by punctuation, and a tagger."""
    import spacy

    nlp = spacy.blank(language)
    nlp.add_pipe("sentencizer")
    component = nlp.add_pipe(NAME, config={"batch_size": batch_size})
    component._trained = trained  # type: ignore[attr-defined]
    return nlp


def tokenize(text: str, language: str = "en") -> tuple[list[list[str]], list[list[bool]]]:
    """Cut a text into sentences: their words, and whether a blank follows each.

    A sentence ends at its punctuation, and at an empty line at the latest.

    Raises:
        ImportError: spaCy lacks the language, or what it needs for it.
    """
    import spacy

    nlp = spacy.blank(language)
    nlp.add_pipe("sentencizer")
    nlp.max_length = len(text) + 1  # the limit is for components that are not here
    docs = nlp.pipe(PARAGRAPH.split(text))
    sentences = [words for doc in docs for span in _sentences(doc) if (words := _words(span))]
    return (
        [[t.text for t in words] for words in sentences],
        [[_blank_follows(t) for t in words] for words in sentences],
    )


def _blank_follows(token: Token) -> bool:
    doc, after = token.doc, token.i + 1
    return bool(token.whitespace_) or (after < len(doc) and doc[after].is_space)


def html(docs: list[Doc], title: str) -> str:
    """Return a page with the entities of documents, marked and coloured.

    Unlike displaCy's, types are escaped too, and each document has its own direction.
    """
    return page.html(
        [[token.text for token in doc] for doc in docs],
        [
            encode([Entity(e.label_, e.start, e.end) for e in doc.ents], len(doc), "iob2")
            for doc in docs
        ],
        title,
        language=docs[0].lang_ if docs else "en",
        spaces=[[bool(token.whitespace_) for token in doc] for doc in docs],
    )


def documents(
    sentences: list[list[str]],
    tags: list[list[str]],
    language: str = "en",
    spaces: list[list[bool]] | None = None,
) -> list[Doc]:
    """Make a document of each sentence, with the entities that its tags hold.

    Args:
        spaces: whether a blank follows each word; None: always.
    """
    import spacy

    vocab = spacy.blank(language).vocab
    docs = []
    for n, (words, row) in enumerate(zip(sentences, tags)):
        doc = Doc(vocab, words=words, spaces=spaces[n] if spaces else None)
        doc.ents = [Span(doc, e.start, e.end, label=e.type) for e in entities(row)]
        docs.append(doc)
    return docs


PARAGRAPH = re.compile(r"\n[ \t\r]*\n")
