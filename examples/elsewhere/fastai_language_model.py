"""fastai's AWD-LSTM on the plays that ship: as it is and converted, with fastai's own learner.

python fastai_language_model.py
"""

from __future__ import annotations

from collections import Counter

import torch
from compare import compare, options
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.text.data import LMDataLoader
from fastai.text.learner import language_model_learner
from fastai.text.models.awdlstm import AWD_LSTM, WeightDropout, awd_lstm_lm_config
from torch import Tensor, nn

from opennmt_sd import convert
from opennmt_sd.data import SHAKESPEARE


def words(split: str, limit: int | None) -> list[str]:
    lines = (SHAKESPEARE / f"{split}.txt").read_text(encoding="utf-8").splitlines()
    return " <eos> ".join(lines[:limit]).split()


def loaders(limit: int | None) -> DataLoaders:
    """Give batches of 20 x 70 words, as AWD-LSTM's authors train on Penn Treebank."""
    train = words("train", limit)
    vocab = ["xxunk", "xxpad", *(word for word, _ in Counter(train).most_common())]
    index = {word: i for i, word in enumerate(vocab)}

    def ids(text: list[str]) -> list[Tensor]:
        return [torch.tensor([index.get(word, 0) for word in text])]

    parts = [ids(train), ids(words("valid", limit and limit // 4))]
    found = DataLoaders(*(LMDataLoader(part, bs=20, seq_len=70, num_workers=0) for part in parts))
    found.vocab = vocab
    return found


# The rates of AWD-LSTM's authors.
RATES = {"input_p": 0.65, "hidden_p": 0.3, "weight_p": 0.5, "embed_p": 0.1, "output_p": 0.4}


def learner(data: DataLoaders, hidden: int) -> Learner:
    """Make fastai's learner, in the sizes that fastai trains."""
    torch.manual_seed(1)
    config = {**awd_lstm_lm_config, **RATES, "n_hid": hidden}
    return language_model_learner(data, AWD_LSTM, config=config, pretrained=False)


def converted(learn: Learner) -> Learner:
    """Drop by structure what is dropped of the input, between layers, and of recurrent weights.

    fastai's ``WeightDropout`` drops single weights, which makes no product smaller. In its place
    the state is dropped that they are multiplied with: all of a column of weights at once.
    """
    encoder = learn.model[0]
    drops = [encoder.input_dp, *encoder.hidden_dps]
    rates = {f"rnns.{i}": drop.p for i, drop in enumerate(drops[:-1])}
    recurrent = encoder.rnns[0].weight_p
    encoder.rnns = nn.ModuleList(plain(wrapped) for wrapped in encoder.rnns)
    for drop in drops:
        drop.p = 0.0
    convert(encoder, input_dropout=rates, recurrent_dropout=recurrent)
    return learn


def plain(wrapped: WeightDropout) -> nn.LSTM:
    """Take an LSTM out of a ``WeightDropout``, its weights parameters again."""
    lstm: nn.LSTM = wrapped.module
    for name in wrapped.layer_names:
        delattr(lstm, name)
        lstm.register_parameter(name, getattr(wrapped, f"{name}_raw"))
    del lstm.flatten_parameters
    return lstm


def epoch(learn: Learner) -> float:
    """Train for an epoch; return the training loss, a moving average."""
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
    return float(learn.recorder.losses[-1])


def main() -> None:
    arguments = options(__doc__).parse_args()
    torch.set_num_threads(arguments.threads)
    data = loaders(arguments.limit)
    theirs, ours = (learner(data, arguments.hidden or 1152) for _ in range(2))
    converted(ours)
    compare(lambda: epoch(theirs), lambda: epoch(ours), arguments.rounds)


if __name__ == "__main__":
    main()
