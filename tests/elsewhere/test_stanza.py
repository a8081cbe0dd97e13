"""stanza's tagger, converted, and its highway LSTM: a packed nn.LSTM for each layer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from opennmt_sd import conversion_report, convert

hlstm: Any = pytest.importorskip(
    "stanza.models.common.hlstm",
    reason="stanza is not installed; scripts/check_elsewhere.sh tries it",
)
pytestmark = pytest.mark.filterwarnings("ignore")


def network(**options: Any) -> Any:
    torch.manual_seed(1)
    return hlstm.HighwayLSTM(12, 64, num_layers=2, batch_first=True, bidirectional=True, pad=True,
                             highway_func=torch.tanh, **options)  # fmt: skip


def test_it_trains_and_is_saved_as_stanzas(example: Any, tmp_path: Any) -> None:
    recipe = example("stanza_tagger")
    sizes = ("--hidden_dim", "16", "--char_hidden_dim", "16", "--deep_biaff_hidden_dim", "16")
    args, vocab, batches = recipe.training(24, *sizes, "--batch_size", "8")
    assert {"B-person", "O"} <= set(vocab["upos"]._unit2id), "what it learns are WNUT-17's tags"
    torch.manual_seed(1)
    trainer = recipe.converted(recipe.Trainer(args=args, vocab=vocab, device="cpu"))
    assert conversion_report(trainer.model).converted == [
        "charmodel.charlstm.lstm", "taggerlstm.lstm.0.lstm", "taggerlstm.lstm.1.lstm",
    ]  # fmt: skip
    losses = [recipe.epoch(trainer, batches) for _ in range(4)]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]

    trainer.save(str(tmp_path / "tagger.pt"))
    plain = recipe.Trainer(model_file=str(tmp_path / "tagger.pt"), device="cpu")
    assert type(plain.model.taggerlstm.lstm[0].lstm) is torch.nn.LSTM
    for batch in batches:
        assert trainer.predict(batch) == plain.predict(batch)


def test_its_layers_train_as_before() -> None:
    theirs, ours = network(), convert(network(), exact=False)
    assert conversion_report(ours).converted == ["lstm.0.lstm", "lstm.1.lstm"]
    x, lengths = torch.randn(3, 7, 12), [7, 5, 2]
    for model in (theirs, ours):
        model.train()(x, lengths)[0].square().sum().backward()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters()):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    outputs = [model.eval()(x, lengths)[0] for model in (ours, theirs)]
    torch.testing.assert_close(*outputs)


def test_its_recurrent_dropout_is_a_loop_over_cells() -> None:
    model = convert(network(rec_dropout=0.5))
    kinds = {found.kind for found in conversion_report(model).modules}
    assert kinds == {"StructuredLSTMCell"}
