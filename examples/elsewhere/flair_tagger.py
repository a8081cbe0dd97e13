"""flair's SequenceTagger on WNUT-17, which ships: as it is and converted, with flair's own trainer.

python flair_tagger.py
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import flair
import torch
from compare import compare, options
from flair.data import Corpus
from flair.datasets import ColumnCorpus
from flair.embeddings import OneHotEmbeddings
from flair.models import SequenceTagger
from flair.trainers import ModelTrainer
from torch.utils.data import Subset

from opennmt_sd import convert
from opennmt_sd.data import WNUT17

COLUMNS = {0: "text", 1: "ner"}


def corpus(limit: int | None = None) -> Corpus:
    """Read WNUT-17's sentences for training and development; or the first, 4 to 1."""
    found = ColumnCorpus(
        WNUT17, COLUMNS, train_file="train.conll", dev_file="dev.conll", test_file="test.conll",
        column_delimiter="\t",
    )  # fmt: skip
    limits = (limit or len(found.train), limit // 4 if limit else len(found.dev))
    train, dev = (Subset(p, range(n)) for p, n in zip((found.train, found.dev), limits))
    return Corpus(train, dev, sample_missing_splits=False)


def tagger(data: Corpus, hidden: int) -> SequenceTagger:
    """Make the tagger that flair's tutorial trains, with embeddings of its own."""
    torch.manual_seed(1)
    return SequenceTagger(
        OneHotEmbeddings.from_corpus(data, min_freq=1, embedding_length=300),
        data.make_label_dictionary("ner", add_unk=False), "ner", hidden_size=hidden,
    )  # fmt: skip


def converted(model: SequenceTagger) -> SequenceTagger:
    """Convert it: its LSTM reads packed sentences, on the kernels now, and drops as before."""
    return convert(model, exact=False)


def epoch(model: SequenceTagger, data: Corpus) -> float:
    """Train for an epoch, with flair's scores of the development set; return the training loss."""
    with tempfile.TemporaryDirectory() as folder:
        ModelTrainer(model, data).train(
            folder, max_epochs=1, learning_rate=0.1, mini_batch_size=32, save_final_model=False,
            embeddings_storage_mode="none",
        )  # fmt: skip
        names, values = (Path(folder) / "loss.tsv").read_text().splitlines()
    return float(dict(zip(names.split("\t"), values.split("\t")))["TRAIN_LOSS"])


def main() -> None:
    arguments = options(__doc__).parse_args()
    torch.set_num_threads(arguments.threads)
    flair.device = torch.device("cpu")
    logging.getLogger("flair").setLevel(logging.ERROR)
    data = corpus(arguments.limit)
    theirs, ours = (tagger(data, arguments.hidden or 256) for _ in range(2))
    converted(ours)
    compare(lambda: epoch(theirs, data), lambda: epoch(ours, data), arguments.rounds)


if __name__ == "__main__":
    main()
