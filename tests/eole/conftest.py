"""What the tests of the Eole plugin share: models as Eole builds them, and its commands on a tiny
corpus, within this process."""

from __future__ import annotations

import json
import logging
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

WORDS = [f"w{i}" for i in range(60)]
SIZES = {"layers": 2, "hidden_size": 12}
SPLIT = {"encoder": {"encoder_type", "bridge"}, "decoder": {"global_attention", "context_gate",
         "coverage_attn", "lambda_coverage", "global_attention_function"}}  # fmt: skip


def model_of(options: dict[str, Any]) -> dict[str, Any]:
    """The part ``model`` of a configuration, from flat options."""
    options = {"word_vec_size": 10, **SIZES, **options}
    cell = options.pop("rnn_type", "LSTM")
    sides: dict[str, dict[str, Any]] = {
        "encoder": {"encoder_type": "brnn", "rnn_type": cell},
        "decoder": {"decoder_type": "rnn", "rnn_type": cell},
    }
    for name, side in sides.items():
        side.update({key: options.pop(key) for key in [*options] if key in SPLIT[name]})
        short = name[:3]
        if f"{short}_layers" in options:
            side["layers"] = options.pop(f"{short}_layers")
    return {"embeddings": {"position_encoding_type": None}, **sides, **options}


@pytest.fixture(scope="session")
def plugin() -> None:
    from opennmt_sd.eole import register

    register()


@pytest.fixture(scope="session")
def vocabs(plugin: None) -> dict[str, Any]:
    from eole.constants import DefaultTokens as D
    from eole.inputters.inputter import dict_to_vocabs

    specials = {"unk_token": D.UNK, "pad_token": D.PAD, "bos_token": D.BOS, "eos_token": D.EOS}
    tokens = [*specials.values(), *WORDS]
    known = {"src": tokens, "tgt": tokens, "decoder_start_token": D.BOS}
    return dict_to_vocabs({**known, "specials": specials})


@pytest.fixture(scope="session")
def build(vocabs: dict[str, Any]) -> Callable[..., Any]:
    """Models, with their losses, as ``eole train`` builds them."""
    from eole.config.run import TrainConfig
    from eole.models.model import get_model_class
    from eole.utils.loss import LossCompute
    from eole.utils.optimizers import Optimizer

    def build(seed: int = 1, training: dict[str, Any] | None = None, **options: Any) -> Any:
        config = TrainConfig(
            model=model_of(options), data={}, src_vocab="none", seed=seed,
            training={"dropout": [0.0], "optim": "adam", **(training or {})},
        )  # fmt: skip
        torch.manual_seed(seed)
        model = get_model_class(config.model).for_training(
            config.model, vocabs, config.training, device_id=-1
        )
        model.optim = Optimizer.from_config(model, config)
        model.loss = {
            train: LossCompute.from_config(config, model, vocabs, train=train)
            for train in (True, False)
        }
        return model.train()

    return build


# ---------------------------------------------------------------- the commands, in this process


@dataclass
class Training:
    """What one run of ``eole train`` did: where, the classes, its statistics and its log."""

    path: Path
    parts: tuple[str, ...] = ()
    losses: list[float] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    correct: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    validations: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def step(self, step: int) -> Path:
        return self.path / f"step_{step}"

    def weights(self, step: int) -> dict[str, torch.Tensor]:
        from safetensors.torch import load_file

        return load_file(self.step(step) / "model.00.safetensors")


class Commands:
    """``eole train`` and ``eole predict`` on a tiny corpus."""

    def __init__(self, corpus: Path, folder: Path) -> None:
        self.corpus, self.folder = corpus, folder

    def on(self, corpus: Path) -> Commands:
        """The same, with the texts of another folder."""
        return Commands(corpus, self.folder)

    @staticmethod
    def model(options: dict[str, Any]) -> dict[str, Any]:
        return model_of(options)

    def config(self, name: str, model: dict[str, Any] | None, **training: Any) -> dict[str, Any]:
        data = {
            split: {f"path_{side}": str(self.corpus / f"{split}.{side}") for side in ("src", "tgt")}
            for split in ("train", "valid")
        }
        given = {
            "train_steps": 2, "batch_size": 6, "bucket_size": 6, "num_workers": 0, "optim": "adam",
            "learning_rate": 0.01, "valid_steps": 1000, "save_checkpoint_steps": 1,
            "dropout": [0.3], "model_path": str(self.folder / name), **training,
        }  # fmt: skip
        config = {"data": data, "src_vocab": str(self.corpus / "vocab.src"), "seed": 1,
                  "tgt_vocab": str(self.corpus / "vocab.tgt"), "report_every": 1,
                  "training": given}  # fmt: skip
        return config if model is None else {**config, "model": model}

    def write(self, name: str, config: dict[str, Any]) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(config))  # which is YAML too
        return path

    def train(
        self, name: str, model: dict[str, Any] | None = None, *, top: dict[str, Any] | None = None,
        **training: Any,
    ) -> Training:  # fmt: skip
        """Run it; ``top``: what stands at the top of the configuration."""
        from eole.bin.run.train import Train
        from eole.trainer import Trainer

        run = Training(self.folder / name)
        step, validate = Trainer._train_step, Trainer.validate

        def recorded(self: Any, batches: Any, norm: Any, total: Any, report: Any, **k: Any) -> None:
            before = (total.loss, total.n_tokens, total.n_correct)
            used = (self.model.encoder, self.model.decoder, self.train_loss, self.valid_loss)
            run.parts = tuple(type(part).__module__.partition(".")[0] for part in used)
            run.steps.append(self.optim.training_step)
            plan = getattr(self.model.encoder, "plan", None)
            run.rates.append(plan.pattern("encoder").p if plan else self.model.decoder.dropout.p)
            step(self, batches, norm, total, report, **k)
            run.losses.append(total.loss - before[0])
            run.words.append(total.n_tokens - before[1])
            run.correct.append(total.n_correct - before[2])

        def validated(self: Any, *args: Any, **kwargs: Any) -> Any:
            stats = validate(self, *args, **kwargs)
            run.validations.append(stats.loss)
            return stats

        config = self.write(name, {**self.config(name, model, **training), **(top or {})})
        with pytest.MonkeyPatch.context() as patch, contained(run.log):
            patch.setattr(Trainer, "_train_step", recorded)
            patch.setattr(Trainer, "validate", validated)
            Train.run(_parsed(Train, "--config", str(config)))
        return run

    def predict(self, model: Path, output: str = "output") -> list[str]:
        from eole.bin.run.predict import Predict

        path = self.folder / output
        args = ("--model_path", str(model), "--src", str(self.corpus / "test.src"), "--output",
                str(path), "--beam_size", "3", "--max_length", "8")  # fmt: skip
        with contained([]):
            Predict.run(_parsed(Predict, *args))
        return path.read_text().splitlines()


def _parsed(command: Any, *args: str) -> Any:
    parser = ArgumentParser()
    command.add_args(parser)
    return parser.parse_args(args)


@contextmanager
def contained(log: list[str]) -> Iterator[None]:
    """Collect Eole's log lines, on one thread. Its commands make their handlers anew."""
    from eole.utils.logging import logger

    def collect(record: logging.LogRecord) -> bool:
        log.append(record.getMessage())
        return True

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logger.addFilter(collect)
    try:
        yield
    finally:
        logger.removeFilter(collect)
        torch.set_num_threads(threads)


@pytest.fixture
def commands(plugin: None, corpus: Path, tmp_path: Path) -> Commands:
    return Commands(corpus, tmp_path)
