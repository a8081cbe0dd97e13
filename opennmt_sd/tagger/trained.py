"""A trained tagger: a model with its vocabulary, to load, use and store."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from opennmt_sd.tagger.batches import Encoded
from opennmt_sd.tagger.decoding import decode
from opennmt_sd.tagger.model import Tagger, TaggerConfig
from opennmt_sd.tagger.schemes import is_tag
from opennmt_sd.tagger.vocabulary import Vocabulary
from opennmt_sd.training import checkpoint

KEY = "tagger"  # among a checkpoint's constants
FILE = "tagger.pt"  # in a folder
BEST = "best.pt"  # in the folder of a training that has not ended


def file_of(path: Path | str) -> Path:
    """Return the checkpoint that a path means, for every command and the spaCy component alike.

    Args:
        path: of a file, or of a folder: its ``tagger.pt``, else its ``best.pt``.

    Raises:
        CheckpointError: a folder without either.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    for name in (FILE, BEST):
        if (path / name).exists():
            return path / name
    raise checkpoint.CheckpointError(
        f"{path} is a folder without a {FILE} or {BEST}: name the folder of a tagger's training, "
        "or a checkpoint"
    )


@dataclass(frozen=True)
class Trained:
    """A model and the vocabulary it was trained with.

    Processes that are forked later may use it too: see :mod:`opennmt_sd.ops.forked`.
    """

    model: Tagger
    vocabulary: Vocabulary

    @classmethod
    def load(cls, path: Path | str) -> Trained:
        """Load from a ``tagger.pt``, a trainer's ``best.pt`` or ``last.pt``, or a folder with one.

        Args:
            path: of the file or folder, see :func:`file_of`.

        Raises:
            CheckpointError: there is none, it is damaged, or it holds something else.
        """
        path = file_of(path)
        return cls.from_state(checkpoint.read(path), str(path))

    @classmethod
    def from_state(cls, state: Mapping[str, Any], name: str) -> Trained:
        """Make one from a checkpoint's content; ``name`` is for the error text.

        Raises:
            CheckpointError: it is not of a tagger, or an entry is missing or of another kind.
        """
        with checkpoint.understood(name):
            return cls._of(state, name)

    @classmethod
    def _of(cls, state: Mapping[str, Any], name: str) -> Trained:
        if KEY not in state["constants"]:
            raise checkpoint.CheckpointError(
                f"{name} is not of a tagger: take a {FILE}, or a best.pt that train_tagger wrote"
            )
        shape = state["constants"][KEY]
        vocabulary = Vocabulary(**shape["vocabulary"])
        for tag in vocabulary.tags:
            if not is_tag(tag):
                raise checkpoint.CheckpointError(
                    f"{name} holds {tag!r} among its tags, which train_tagger never writes: "
                    "it is damaged, or somebody made it by hand. Take another one"
                )
        model = Tagger(TaggerConfig.from_dict(shape["config"]), vocabulary)
        model.load_state_dict(checkpoint.weights(state))
        return cls(model.eval(), vocabulary)

    @property
    def types(self) -> list[str]:
        """The types of entity it knows."""
        return sorted({tag[2:] for tag in self.vocabulary.tags if tag != "O"})

    def constants(self) -> dict[str, Any]:
        """Return what belongs to the weights: plain values, for a checkpoint."""
        return {KEY: {"config": self.model.config.to_dict(), "vocabulary": asdict(self.vocabulary)}}

    def save(self, path: Path, config: Mapping[str, Any] | None = None) -> None:
        """Write a file that :meth:`load` reads: no optimizer in it; whole or not at all.

        Args:
            config: plain values, kept in the file: what it was trained with.

        Raises:
            SaveError: the disk is full, say.
        """
        checkpoint.write(path, {**self._state(), "config": config or {}})

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        torch.save(self._state(), buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Trained:
        """Make one from what :meth:`to_bytes` gave.

        Raises:
            CheckpointError: it is something else.
        """
        try:
            state = torch.load(io.BytesIO(data), weights_only=True)
        except Exception as error:  # a foreign pickle can raise anything
            raise checkpoint.CheckpointError(
                f"these {len(data):,} bytes are no tagger: take what to_bytes gave, all of it"
            ) from error
        return cls.from_state(state, "the data")

    def _state(self) -> dict[str, Any]:
        weights = checkpoint.plain(self.model.state_dict())
        return {"model": weights, "averaging": None, "constants": self.constants()}

    def tags(self, sentences: Sequence[Sequence[str]], batch_size: int = 64) -> list[list[str]]:
        """Return the tags of sentences, in the model's scheme; an empty sentence has none.

        Args:
            sentences: words.
            batch_size: sentences that are decoded together; they are sorted by length first.
        """
        filled = [words for words in sentences if len(words)]
        encoded = Encoded(self.vocabulary, filled, self.model.chars.layout)
        found = iter(decode(self.model, self.vocabulary, encoded, batch_size))
        return [next(found) if len(words) else [] for words in sentences]
