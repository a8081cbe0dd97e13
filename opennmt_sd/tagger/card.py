"""The model card that is written beside a trained tagger."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from importlib.metadata import version

from opennmt_sd.dropout import DropoutPattern
from opennmt_sd.tagger.corpora import Corpora
from opennmt_sd.tagger.model import TaggerConfig
from opennmt_sd.tagger.scores import Scores
from opennmt_sd.tagger.trained import Trained

DROPPED = {
    "input_dropout": "input of the {cell}",
    "dropout": "between its layers",
    "recurrent_dropout": "h before weight_hh",
    "output_dropout": "output of the {cell}",
}
CASES = {
    ("random", "random"): "Case I",
    ("random", "fixed"): "Case II",
    ("structured", "random"): "Case III",
    ("structured", "fixed"): "Case IV",
}


@dataclass(frozen=True)
class Card:
    """What a reader of a model card wants to know.

    Args:
        trained: the tagger.
        corpora: what it was trained, chosen and tested on.
        scores: of ``"valid"`` and ``"test"``, as far as they are known.
        vectors: where the word vectors came from; None if they are random.
        coverage: the share of training words that have one.
        config: the run's configuration as YAML.
    """

    trained: Trained
    corpora: Corpora
    scores: Mapping[str, Scores]
    vectors: str | None
    coverage: float
    config: str

    def __str__(self) -> str:
        """Return the card as Markdown."""
        vocabulary, model = self.trained.vocabulary, self.trained.model
        types = ", ".join(map(_plain, self.trained.types))
        parts = [
            "# Named-entity tagger",
            f"Trained with opennmt_sd {version('opennmt_sd')}. It knows the types {types}, "
            f"and tags in {vocabulary.scheme.upper()}.",
            "## Use",
            "```python\n"
            "import spacy\n\n"
            'nlp = spacy.blank("en")\n'
            'nlp.add_pipe("sentencizer")\n'
            'nlp.add_pipe("structured_ner", config={"path": "this folder"})\n'
            "```",
            "## Data",
            _table(
                ["", "file", "sentences", "words", "tag scheme"],
                [
                    [name, _code(c.name), f"{len(c.sentences):,}", f"{c.words:,}", c.scheme or "-"]
                    for name, c in self.corpora.there.items()
                ],
            ),
            f"Words and tags come from the training data alone: {len(vocabulary.words):,} words, "
            f"{len(vocabulary.chars):,} characters. "
            + (
                f"Word vectors: {_code(self.vectors)}, which cover {self.coverage:.1%} of the "
                f"training words; {len(vocabulary.unseen):,} words are known from there only."
                if self.vectors
                else "Word vectors: none; those of the words of training were learned."
            ),
            "## Scores",
            "Entity scores in percent, as conlleval counts them. The validation data chose the "
            "epoch; the test data were decoded once, with that epoch's weights.",
            *(_scores(name, scores) for name, scores in self.scores.items()),
            "## Model",
            _model(model.config),
            f"{sum(p.numel() for p in model.parameters()):,} trained parameters.",
            "## Limits",
            "It knows the kind of text it was trained on and its types, and no others; names "
            "that look unlike those of training are often missed.",
            "## Configuration",
            _yaml(self.config.rstrip()),
        ]
        return "\n\n".join(parts) + "\n"


def _scores(split: str, scores: Scores) -> str:
    named = [*((_plain(kind), s) for kind, s in scores.types.items()), ("**all**", scores.all)]
    rows = [
        [name, f"{s.precision:.2f}", f"{s.recall:.2f}", f"{s.f1:.2f}", f"{s.support:,}"]
        for name, s in named
    ]
    wrong = ", ".join(f"{count:,} {kind}" for kind, count in scores.errors.items())
    return (
        f"### {split}\n\n"
        + _table(["type", "precision", "recall", "F1", "entities"], rows)
        + f"\n\nErrors: {wrong}."
    )


def _model(config: TaggerConfig) -> str:
    cell = config.cell.upper()
    drops = []
    for name, place in DROPPED.items():
        pattern: DropoutPattern = getattr(config, name)
        if pattern.active and (name != "dropout" or config.layers > 1):
            case = CASES[pattern.space, pattern.time] + ", exact" * pattern.exact
            drops.append(f"{place.format(cell=cell)} {pattern.p:g} ({case})")
    if config.chars != "none" and config.char_dropout:
        drops.append(f"characters {config.char_dropout:g} (ordinary)")
    chars = {
        "cnn": f"a CNN over characters ({config.char_width} filters of {config.char_window})",
        "lstm": f"an LSTM over characters ({config.char_width} units)",
        "none": "no characters",
    }[config.chars]
    layers = "layer" if config.layers == 1 else "layers"
    return (
        f"Word vectors of {config.word_dim} ({'trained' if config.fine_tune else 'fixed'}), "
        f"{chars}; "
        f"bidirectional {cell}, {config.layers} {layers} of {config.hidden} units a direction; "
        f"{f'a tanh layer of {config.projection}; ' if config.projection else ''}"
        f"{'linear-chain CRF' if config.head == 'crf' else 'softmax'}. Dropout: "
        f"{'; '.join(drops) or 'none'}."
    )


def _plain(text: str) -> str:
    """Return text in a form that Markdown and HTML show as it is."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", escape(text, quote=False))


def _code(text: str) -> str:
    """Return a name in code letters, for a table too."""
    ticks = "`" * (_longest(text) + 1)
    blank = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{blank}{text}{blank}{ticks}".replace("|", "\\|").replace("\n", " ")


def _yaml(text: str) -> str:
    fence = "`" * max(3, _longest(text) + 1)
    return f"{fence}yaml\n{text}\n{fence}"


def _longest(text: str) -> int:
    """Return the length of the longest run of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
