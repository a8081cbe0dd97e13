"""stanza's tagger on WNUT-17, which ships: as it is and converted, with stanza's own trainer.

python stanza_tagger.py
"""

from __future__ import annotations

import logging
import statistics
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from compare import compare, options
from stanza.models import tagger
from stanza.models.pos.trainer import Trainer

from opennmt_sd import convert
from opennmt_sd.data import WNUT17


def treebank(path: Path, limit: int | None = None) -> Path:
    """Write WNUT-17's sentences, or the first, as a treebank: an entity's tag is a word's UPOS."""
    text = (WNUT17 / "train.conll").read_text(encoding="utf-8").strip()
    with path.open("w", encoding="utf-8") as file:
        for sentence in text.split("\n\t\n")[:limit]:
            for i, line in enumerate(sentence.splitlines(), 1):
                word, tag = line.split("\t")
                arc = "0\troot" if i == 1 else "1\tdep"
                file.write(f"{i}\t{word}\t_\t{tag}\t_\t_\t{arc}\t_\t_\n")
            file.write("\n")
    return path


def training(limit: int | None = None, *arguments: str) -> tuple[dict[str, Any], Any, Any]:
    """Return the tagger's options, stanza's defaults but for these; its vocabulary, its batches."""
    with tempfile.TemporaryDirectory() as folder:
        path = treebank(Path(folder) / "train.conllu", limit)
        given = ("--train_file", str(path), "--shorthand", "en_wnut", "--no_pretrain", "--cpu")
        args = tagger.parse_args([*given, *arguments])
        args["word_cutoff"] = 0  # stanza's own choice where no vectors are given
        vocab, _, batches = tagger.load_training_data(args, None)
    return args, vocab, batches


def converted(trainer: Trainer) -> Trainer:
    """Convert its model: its LSTMs read packed sentences, on the kernels now."""
    convert(trainer.model, exact=False)
    return trainer


def epoch(trainer: Trainer, batches: Iterable[Any]) -> float:
    """Train for an epoch; return the mean loss."""
    return statistics.mean(float(trainer.update(batch)) for batch in batches)


def main() -> None:
    arguments = options(__doc__).parse_args()
    torch.set_num_threads(arguments.threads)
    logging.getLogger("stanza").setLevel(logging.ERROR)
    sizes = ("--hidden_dim", str(arguments.hidden or 200), "--batch_size", "32")  # a small corpus
    args, vocab, batches = training(arguments.limit, *sizes)
    theirs, ours = (Trainer(args=dict(args), vocab=vocab, device="cpu") for _ in range(2))
    ours.model.load_state_dict(theirs.model.state_dict())
    converted(ours)
    compare(lambda: epoch(theirs, batches), lambda: epoch(ours, batches), arguments.rounds)


if __name__ == "__main__":
    main()
