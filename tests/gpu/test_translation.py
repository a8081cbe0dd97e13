"""Translators on a GPU: `onmt_train` trains there what it trains on the CPU."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("onmt", reason="opennmt-py is not installed")

pytestmark = pytest.mark.usefixtures("settled")

Weights = dict[str, Tensor]
WORDS = [f"w{i}" for i in range(20)]
TINY = {
    "encoder_type": "sd_brnn", "decoder_type": "sd_rnn", "layers": 2, "hidden_size": 12,
    "word_vec_size": 10, "dropout": 0.4, "batch_size": 5, "valid_batch_size": 4, "bucket_size": 20,
    "num_workers": 0, "optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0, "seed": 3,
    "valid_steps": 1000, "report_every": 1, "param_init": 0.3, "save_checkpoint_steps": 4,
}  # fmt: skip


@pytest.fixture
def log() -> Iterator[None]:
    """onmt's logger as it was, afterwards."""
    onmt = logging.getLogger("onmt")
    level, handlers = onmt.level, [*onmt.handlers]
    yield
    onmt.handlers = handlers
    onmt.setLevel(level)


@pytest.fixture
def train(tmp_path: Path, log: None) -> Callable[..., Weights]:
    """``train(device, name, steps, *options)``: the weights at the end."""
    from onmt.bin import train as command

    from opennmt_sd.onmt import register

    register()
    drawn = random.Random(1)
    for side in ("src", "tgt"):
        lines = [" ".join(drawn.choices(WORDS, k=drawn.randint(1, 9))) for _ in range(40)]
        (tmp_path / f"train.{side}").write_text("\n".join(lines) + "\n")
        (tmp_path / f"vocab.{side}").write_text("".join(f"{word}\n" for word in WORDS))
    paths = {f"path_{side}": str(tmp_path / f"train.{side}") for side in ("src", "tgt")}
    data = json.dumps({"corpus_1": {**paths, "weight": 1}, "valid": paths})
    files = [word for side in ("src", "tgt")
             for word in (f"-{side}_vocab", str(tmp_path / f"vocab.{side}"))]  # fmt: skip

    def train(device: torch.device, name: str, steps: int, *options: str) -> Weights:
        on = ["-world_size", "1", "-gpu_ranks", "0"] if device.type == "cuda" else []
        tiny = [word for name, value in TINY.items() for word in (f"-{name}", str(value))]
        given = [*tiny, "-data", data, *files, "-save_model", str(tmp_path / name), *on,
                 "-train_steps", str(steps), *options]  # fmt: skip
        opt, unknown = command._get_parser().parse_known_args(given)
        assert not unknown
        if on:
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.max_memory_allocated(device)
        command.train(opt)
        assert not on or torch.cuda.max_memory_allocated(device) > before
        saved = torch.load(tmp_path / f"{name}_step_{steps}.pt", weights_only=False)
        parts = saved["model"], saved["generator"]
        return {n: w.cpu() for part in parts for n, w in part.items()}

    return train


MODELS = {
    "input feed": [],
    "no input feed": ["-input_feed", "0"],
    "no input feed, RH": ["-input_feed", "0", "-sd_recurrent_dropout", "0.3"],
    "RH": ["-sd_recurrent_dropout", "0.3"],
    "GRU": ["-rnn_type", "GRU", "-input_feed", "0"],
    "copy_attn": ["-copy_attn"],
    "coverage": ["-coverage_attn", "-global_attention", "mlp"],
    "by step": ["-sd_output_sets", "by_step"],
    "bernoulli": ["-sd_count", "bernoulli"],
    "Case I": ["-sd_space", "random"],
}


@pytest.mark.parametrize("model", MODELS)
def test_a_translator_learns_what_it_learns_on_the_cpu(
    device, close, train: Callable[..., Weights], model: str
) -> None:
    """One seed drops the same units there, staggered over the rows of the output too."""
    start = train(torch.device("cpu"), "start", 1, *MODELS[model], "-learning_rate", "1e-30")
    want = train(torch.device("cpu"), "cpu", 4, *MODELS[model])
    got = train(device, "card", 4, *MODELS[model])
    moved = {n: want[n] - start[n] for n in want}
    # What moves less is rounded too much; attention begins with gradients that are nearly zero.
    moved = {n: change for n, change in moved.items() if change.abs().max() > 1e-4}
    assert {n.split(".")[0] for n in want} == {n.split(".")[0] for n in moved}
    assert len(moved) > 0.8 * len(want)
    close({n: got[n] - start[n] for n in moved}, moved, torch.float16)


@pytest.mark.parametrize("model", ["input feed", "no input feed, RH"])
def test_a_training_twice_gives_the_same_bits(device, train, model: str) -> None:
    first, again = (train(device, name, 4, *MODELS[model]) for name in ("first", "again"))
    assert [n for n in first if not torch.equal(first[n], again[n])] == []
    other = train(device, "other", 4, *MODELS[model], "-seed", "4")
    assert [n for n in first if torch.equal(first[n], other[n])] == []
