"""The tagger: words and their characters, a bidirectional LSTM or GRU, and a CRF or softmax on top.

Axis names: R words of a batch (packed), W distinct words, E word embedding, F character features,
H hidden units a direction, K tags.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from opennmt_sd.dropout import DropoutPattern, check_rate
from opennmt_sd.nn import MaskedLinear, by_name
from opennmt_sd.tagger.batches import Batch
from opennmt_sd.tagger.chars import CharCNN, CharEncoder, CharLSTM, NoChars, parity
from opennmt_sd.tagger.heads import HEADS, Head, head
from opennmt_sd.tagger.vocabulary import FIRST_CHAR, Vocabulary

CHARS = ("cnn", "lstm", "none")
NOTHING = DropoutPattern(0.0)


@dataclass(frozen=True)
class TaggerConfig:
    """The shape of a tagger, and what it drops.

    Args:
        word_dim: E. Default 100.
        fine_tune: whether word vectors are trained. Default True.
        chars: ``"cnn"`` (default), ``"lstm"`` or ``"none"``.
        char_dim, char_width, char_window: a character's embedding, F, and what a filter of the
            CNN sees. Default 30, 30, 3.
        char_dropout: rate of ordinary dropout on character embeddings. Default 0.
        cell: of the recurrent layers, ``"lstm"`` (default) or ``"gru"``. Keyword only.
        hidden: H. Default 200.
        layers: recurrent ones. Default 1.
        projection: units of a tanh layer before the tags (Lample); 0 (default): none.
        head: ``"crf"`` (default) or ``"softmax"``.
        input_dropout, dropout, output_dropout, recurrent_dropout: patterns on the recurrent
            layers' input, between them, on their output, and on h before ``weight_hh``. Default:
            nothing.

    Raises:
        ValueError: with every fault at once.
    """

    word_dim: int = 100
    fine_tune: bool = True
    chars: str = "cnn"
    char_dim: int = 30
    char_width: int = 30
    char_window: int = 3
    char_dropout: float = 0.0
    cell: str = field(default="lstm", kw_only=True)
    hidden: int = 200
    layers: int = 1
    projection: int = 0
    head: str = "crf"
    input_dropout: DropoutPattern = field(default=NOTHING)
    dropout: DropoutPattern = field(default=NOTHING)
    output_dropout: DropoutPattern = field(default=NOTHING)
    recurrent_dropout: DropoutPattern = field(default=NOTHING)

    def __post_init__(self) -> None:
        faults = [
            f"{name} must be at least {least}, got {getattr(self, name)}"
            for name, least in (
                ("word_dim", 1), ("char_dim", 1), ("char_width", 1), ("char_window", 1),
                ("hidden", 1), ("layers", 1), ("projection", 0),
            )
            if getattr(self, name) < least
        ]  # fmt: skip
        faults += [
            f"{name} {value!r} is unknown: use one of {', '.join(known)}"
            for name, value, known in (
                ("chars", self.chars, CHARS),
                ("cell", self.cell, by_name.STRUCTURED),
                ("head", self.head, HEADS),
            )
            if value not in known
        ]
        if wrong := parity(self.chars, self.char_width, self.char_window):
            name, (rule, _) = wrong
            value = getattr(self, f"char_{name}")
            faults.append(f"char_{name} must be {rule} for chars={self.chars}, got {value}")
        try:
            check_rate(self.char_dropout, "char_dropout")
        except (TypeError, ValueError) as error:
            faults.append(str(error))
        if faults:
            raise ValueError("\n".join(faults))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TaggerConfig:
        """Make one from what :meth:`to_dict` gave; a pattern may also be a bare rate."""

        def read(name: str, value: Any) -> Any:
            if not name.endswith("dropout") or name == "char_dropout":
                return value
            return (
                DropoutPattern(**value) if isinstance(value, Mapping) else DropoutPattern.of(value)
            )

        known = {f.name for f in fields(cls)}
        unknown = sorted(values.keys() - known)
        if unknown:
            raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        return cls(**{name: read(name, value) for name, value in values.items()})


class WordEmbedding(nn.Module):
    """Vectors of the words of training (trained), then of words with a pretrained one (fixed).

    Args:
        trained, unseen: how many of each; number 0 is the unknown word.
        dim: E.

    Attributes:
        sparse: whether the gradient is sparse, as in ``nn.Embedding``. Default False.
    """

    sparse = False

    def __init__(self, trained: int, unseen: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(trained, dim))
        self.unseen: Tensor
        self.register_buffer("unseen", torch.zeros(unseen, dim))
        nn.init.uniform_(self.weight, -math.sqrt(3 / dim), math.sqrt(3 / dim))

    def forward(self, words: Tensor) -> Tensor:
        """Look up words: ``[R]`` to ``[R, E]``."""
        trained = self.weight.shape[0]
        if self.training or not len(self.unseen):  # training data hold no unseen word
            return F.embedding(words, self.weight, sparse=self.sparse)
        known = F.embedding(words.clamp(max=trained - 1), self.weight, sparse=self.sparse)
        other = F.embedding((words - trained).clamp(min=0), self.unseen)
        return torch.where((words >= trained).unsqueeze(1), other, known)


class Tagger(nn.Module):
    """The model. Its forward gives the loss; :meth:`decode` gives tags.

    Args:
        config: its shape.
        vocabulary: how many words, characters and tags there are.

    Sources: Ma and Hovy 2016; Lample et al. 2016; dropout: Sarma et al., NeurIPS 2021.
    """

    def __init__(self, config: TaggerConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config = config
        self.words = WordEmbedding(
            vocabulary.trained, len(vocabulary.unseen), config.word_dim
        ).requires_grad_(config.fine_tune)
        self.chars = char_encoder(config, FIRST_CHAR + len(vocabulary.chars))
        layers = by_name.STRUCTURED[config.cell](
            config.word_dim + self.chars.width, config.hidden, config.layers, bidirectional=True,
            dropout=config.dropout if config.layers > 1 else NOTHING,
            input_dropout=config.input_dropout, recurrent_dropout=config.recurrent_dropout,
        )  # fmt: skip
        layers.exact = False  # prediction is quicker so
        self.add_module(config.cell, layers)
        K = len(vocabulary.tags)
        self.projection = (
            MaskedLinear(2 * config.hidden, config.projection, dropout=config.output_dropout)
            if config.projection
            else None
        )
        self.output = MaskedLinear(
            config.projection or 2 * config.hidden, K,
            dropout=NOTHING if config.projection else config.output_dropout,
        )  # fmt: skip
        self.head: Head = head(config.head, K)
        initialise(self)

    @property
    def recurrent(self) -> nn.Module:
        """The recurrent layers, which have their cell's name: ``lstm`` or ``gru``."""
        return self.get_submodule(self.config.cell)

    def forward(self, batch: Batch) -> Tensor:
        """Return the negative log-likelihood of the batch's tags in nats, summed over sentences."""
        if batch.tags is None:
            raise ValueError("the batch has no tags: a loss needs them; use decode for new text")
        return self.head.nll(self.scores(batch), batch.tags, batch.sizes)

    def scores(self, batch: Batch) -> Tensor:
        """Return the scores of every tag, ``[R, K]``."""
        x = self.words(batch.words)  # [R, E]
        if self.chars.width:
            spelled = self.chars(*batch.chars)  # [W, F]
            x = torch.cat([x, F.embedding(batch.spelling, spelled)], 1)  # [R, E + F]
        packed, _ = self.recurrent(PackedSequence(x, batch.sizes))  # [R, 2H]
        if self.projection is not None:
            packed = _projected(self.projection, packed)
            packed = packed._replace(data=torch.tanh(packed.data))
        return _projected(self.output, packed).data

    @torch.no_grad()
    def decode(self, batch: Batch) -> Tensor:
        """Return the best tags' numbers: int64 ``[R]``, in the batch's order of rows."""
        return self.head.decode(self.scores(batch), batch.sizes)


def _projected(linear: nn.Linear, packed: PackedSequence) -> PackedSequence:
    """Run a linear layer on packed rows: ours, or torch's own, which a reverted model has."""
    if isinstance(linear, MaskedLinear):
        return cast(PackedSequence, linear(packed))
    return packed._replace(data=linear(packed.data))


def char_encoder(config: TaggerConfig, count: int) -> Any:
    """Make the character encoder of a config, for ``count`` characters."""
    if config.chars == "none":
        return NoChars()
    shape = count, config.char_dim, config.char_width
    if config.chars == "lstm":
        return CharLSTM(*shape, dropout=config.char_dropout)
    return CharCNN(*shape, window=config.char_window, dropout=config.char_dropout)


def initialise(model: nn.Module) -> None:
    """Draw matrices (Glorot, uniform); set biases to 0, those of an LSTM's forget gates to 1.

    Source: Ma and Hovy 2016, section 3.2.
    """
    for name, parameter in model.named_parameters():
        kind, _, _ = name.partition(".")
        if kind in ("words", "head"):
            continue
        if "embedding" in name:
            bound = math.sqrt(3 / parameter.shape[1])
            nn.init.uniform_(parameter, -bound, bound)
            with torch.no_grad():
                parameter[0] = 0  # padding
        elif parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
        else:
            nn.init.zeros_(parameter)
    for lstm in (module for module in model.modules() if isinstance(module, nn.LSTM)):
        for name, parameter in lstm.named_parameters():
            if "bias_ih" in name:
                H = lstm.hidden_size
                nn.init.ones_(parameter.data[H : 2 * H])  # gates i, f, g, o


def load_vectors(words: WordEmbedding, vocabulary: Vocabulary, vectors: Mapping[str, Any]) -> int:
    """Put pretrained vectors in place.

    Returns:
        How many of the training words have one.
    """
    found = [(n, w) for n, w in enumerate(vocabulary.words, start=1) if w in vectors]
    with torch.no_grad():
        for n, word in found:
            words.weight[n] = torch.as_tensor(vectors[word])
        for n, word in enumerate(vocabulary.unseen):
            words.unseen[n] = torch.as_tensor(vectors[word])
    return len(found)


__all__ = ["CharEncoder", "Tagger", "TaggerConfig", "WordEmbedding", "load_vectors"]
