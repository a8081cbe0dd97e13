"""A small LSTM classifier in a Hugging Face Trainer: converted, and then trained as ever.

python hugging_face_trainer.py
"""

from __future__ import annotations

import tempfile

import torch
from compare import compare, options
from languages import Classifier, Sentences
from transformers import Trainer, TrainingArguments

from opennmt_sd import convert


def epoch(model: Classifier, sentences: Sentences) -> float:
    """Train for an epoch; return the mean loss."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=1, per_device_train_batch_size=64, learning_rate=1e-3,
            use_cpu=True, save_strategy="no", report_to=[], disable_tqdm=True,
            logging_strategy="no",
        )  # fmt: skip
        return float(Trainer(model, arguments, train_dataset=sentences).train().training_loss)


def main() -> None:
    arguments = options(__doc__).parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    sentences = Sentences("train", arguments.limit or 4000)
    as_it_is, converted = (Classifier(arguments.hidden or 512) for _ in range(2))
    converted.load_state_dict(as_it_is.state_dict())
    convert(converted, recurrent_dropout=0.5)  # the line that is ours
    compare(
        lambda: epoch(as_it_is, sentences), lambda: epoch(converted, sentences), arguments.rounds
    )


if __name__ == "__main__":
    main()
