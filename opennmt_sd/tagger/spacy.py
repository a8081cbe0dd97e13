"""The spaCy component ``structured_ner``: a trained tagger that sets ``doc.ents``.

spaCy finds it through the entry point ``spacy_factories``; nothing need be imported::

    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("structured_ner", config={"path": "runs/tagger/mine"})
    nlp("Peter Blackburn flew to Brussels.").ents

``nlp.to_disk`` stores the tagger with the pipeline, and ``spacy.load`` needs nothing else.
"""

from __future__ import annotations

import html as _html
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from spacy import displacy
from spacy.language import Language
from spacy.tokens import Doc, Span, Token
from spacy.training import Example
from spacy.util import filter_spans, minibatch

from opennmt_sd.tagger.schemes import entities
from opennmt_sd.tagger.trained import FILE, Trained
from opennmt_sd.training.checkpoint import CheckpointError

NAME = "structured_ner"


class StructuredNER:
    """Sets the entities of documents.

    A document's sentences are tagged one by one where it has any (a ``sentencizer`` or a parser
    before this component), else the document is one sentence. White space is no word: the tagger
    does not see it, and an entity goes on across it. Entities that are there already
    stay, and win where they overlap.

    Args:
        path: of a trained tagger (see :meth:`Trained.load`); None where ``from_disk`` follows.
            Read at the first use, since a pipeline that is loaded from disk brings its own.
        batch_size: sentences that are decoded together.
        name: in the pipeline.
    """

    def __init__(
        self, path: Path | str | None = None, batch_size: int = 64, name: str = NAME
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"{name}: batch_size must be at least 1 sentence, got {batch_size}")
        self.path, self.batch_size, self.name = path, batch_size, name
        self._trained: Trained | None = None

    @property
    def trained(self) -> Trained:
        """The tagger.

        Raises:
            CheckpointError: there is none, or it cannot be read.
        """
        if self._trained is None:
            if self.path is None:
                raise CheckpointError(
                    f"{self.name} has no tagger: name one, "
                    f'nlp.add_pipe("{NAME}", config={{"path": ..}})'
                )
            self._trained = Trained.load(self.path)
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
        """Documents in groups of ``batch_size``, whose sentences are decoded together."""
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

    def score(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """spaCy's entity scores, for ``nlp.evaluate``."""
        from spacy.scorer import get_ner_prf

        return get_ner_prf(examples)

    def to_disk(self, path: Path | str, *, exclude: Iterable[str] = ()) -> None:  # noqa: ARG002
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        self.trained.save(folder / FILE)

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
def make(nlp: Language, name: str, path: str | None, batch_size: int) -> StructuredNER:  # noqa: ARG001
    """The factory."""
    return StructuredNER(path, batch_size, name)


def pipeline(trained: Trained, language: str = "en", batch_size: int = 64) -> Language:
    """A pipeline of a language's tokenizer, sentences by punctuation, and a tagger."""
    import spacy

    nlp = spacy.blank(language)
    nlp.add_pipe("sentencizer")
    component = nlp.add_pipe(NAME, config={"batch_size": batch_size})
    component._trained = trained  # type: ignore[attr-defined]
    return nlp


def tokenize(text: str, language: str = "en") -> tuple[list[list[str]], list[list[bool]]]:
    """The sentences of a text: their words, and whether a blank follows each.

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
    """A page with the entities of documents, marked and coloured."""
    kinds = sorted({entity.label_ for doc in docs for entity in doc.ents})
    colours = {kind: COLOURS[n % len(COLOURS)] for n, kind in enumerate(kinds)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\[W006\]")  # a sentence may well have no entity
        marked = displacy.render(
            docs, style="ent", page=False, jupyter=False, options={"colors": colours}
        )
    return PAGE.format(title=_html.escape(title), body=marked)


def documents(
    sentences: list[list[str]],
    tags: list[list[str]],
    language: str = "en",
    spaces: list[list[bool]] | None = None,
) -> list[Doc]:
    """A document for each sentence, with the entities that its tags hold.

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

# Light enough for black text.
COLOURS = ("#aee3f5", "#ffd9a0", "#c9eab0", "#f6c1d9", "#d9ccf5", "#f3ec9b", "#b8e6d8", "#e6d2bd")

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 16px/1.6 system-ui, sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em; }}
.entities {{ line-height: 2.2 !important; margin: 0 0 .6em; }}
mark {{ -webkit-box-decoration-break: clone; box-decoration-break: clone; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""
