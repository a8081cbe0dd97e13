"""What the tests of the plugin share: onmt with the plugin registered, a parser at hand, and the
commands on a tiny corpus, within this process."""

from __future__ import annotations

import functools
import json
import logging
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

CONFIG = """
encoder_type: sd_brnn
decoder_type: sd_rnn
data: {}
src_vocab: none
"""


@pytest.fixture(scope="session")
def plugin() -> None:
    from opennmt_sd.onmt import register

    register()


@pytest.fixture
def parse(plugin: None, tmp_path: Path) -> Callable[..., Namespace]:
    """`onmt_train`'s own parser, on a config with our types and what a test adds to it."""

    def parse(*args: str, yaml: str = "") -> Namespace:
        from onmt.bin.train import _get_parser

        config = tmp_path / "config.yaml"
        config.write_text(CONFIG + yaml)
        return _get_parser().parse_known_args(["-config", str(config), *args])[0]

    return parse


@pytest.fixture
def refused(
    parse: Callable[..., Namespace], capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Like `parse`, of what must be refused: gives the text on stderr."""

    def refused(*args: str, yaml: str = "") -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            parse(*args, yaml=yaml)
        assert exit_.value.code == 2
        return capsys.readouterr().err

    return refused


OURS = {"encoder_type": "sd_brnn", "decoder_type": "sd_rnn"}
TINY = {
    "layers": 2, "hidden_size": 12, "word_vec_size": 10, "batch_size": 6, "valid_batch_size": 4,
    "bucket_size": 6, "num_workers": 0, "optim": "adam", "learning_rate": 0.01, "seed": 1,
    "save_checkpoint_steps": 1, "valid_steps": 1000, "report_every": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Counts:
    """onmt's Statistics of one update, or of one validation, as plain numbers.

    Args:
        step: the update, counted from 1; of a validation the update it follows.
        loss: the sum over words that a :class:`LossCompute` reports.
        n_batches, n_sents, n_words, n_correct: counted by onmt.
        ppl, accuracy, xent: worked out by onmt.
    """

    step: int
    loss: float
    n_batches: int
    n_sents: int
    n_words: int
    n_correct: int
    ppl: float
    accuracy: float
    xent: float

    @classmethod
    def of(cls, step: int, stats: Any) -> Counts:
        return cls(step, stats.loss, stats.n_batchs, stats.n_sents, stats.n_words,
                   stats.n_correct, stats.ppl(), stats.accuracy(), stats.xent())  # fmt: skip


@dataclass
class Training:
    """What one run of ``onmt_train`` did, and where its last checkpoint is.

    Args:
        path: ``-save_model``.
        updates, validations: their statistics; ``log``: onmt's log.
        parts: the modules that encoder, decoder and loss come from; ``optimizer``: its class.
        unknown: what the parser left over.
    """

    path: Path
    parts: tuple[str, ...] = ()
    optimizer: str = ""
    updates: list[Counts] = field(default_factory=list)
    validations: list[Counts] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def checkpoint(self, step: int | None = None) -> Path:
        step = step or self.updates[-1].step
        return self.path.with_name(f"{self.path.name}_step_{step}.pt")


class Translation(NamedTuple):
    """What one run of ``onmt_translate`` wrote: the file and the log."""

    lines: list[str]
    log: list[str]


def arguments(options: dict[str, Any]) -> list[str]:
    """``{"layers": 2, "bridge": True, "dropout": [0.3, 0.1]}`` as a command line."""
    given = {name: value for name, value in options.items() if value is not False}
    args: list[str] = []
    for name, value in given.items():
        values = [] if value is True else value if isinstance(value, list) else [value]
        args += [f"-{name}", *map(str, values)]
    return args


class Commands:
    """``onmt_train`` and ``onmt_translate`` on a tiny corpus, within this process.

    Sources have 1 to 14 words, and batches are cut as the lines come, so that they are padded.
    """

    def __init__(self, corpus: Path, folder: Path) -> None:
        self.corpus, self.folder = corpus, folder

    def data(self, **files: str) -> dict[str, Any]:
        """The options of a corpus: whole texts may take the place of train_src, train_tgt."""
        paths = {name: self.corpus / name.replace("_", ".")
                 for name in ("train_src", "train_tgt", "valid_src", "valid_tgt")}  # fmt: skip
        for name, text in files.items():
            paths[name] = self.folder / name
            paths[name].write_text(text)
        corpora = {
            corpus: {"path_src": str(paths[f"{split}_src"]), "path_tgt": str(paths[f"{split}_tgt"]),
                     "weight": 1}
            for corpus, split in (("corpus_1", "train"), ("valid", "valid"))
        }  # fmt: skip
        vocabularies = {f"{side}_vocab": self.corpus / f"vocab.{side}" for side in ("src", "tgt")}
        return {"data": json.dumps(corpora), **vocabularies}

    def with_features(self) -> Commands:
        """The same corpus, with a feature at every word of the sources."""
        folder = self.folder / "features"
        folder.mkdir()
        for path in self.corpus.iterdir():
            text = path.read_text()
            if path.name in ("train.src", "valid.src", "test.src"):
                lines = (line.split() for line in text.splitlines())
                text = "".join(" ".join(f"{w}\uffe8{w[-1]}" for w in line) + "\n" for line in lines)
            (folder / path.name).write_text(text)
        (folder / "vocab.src_feat0").write_text("".join(f"{i}\n" for i in range(10)))
        return Commands(folder, self.folder)

    def train(self, steps: int, name: str = "model", **options: Any) -> Training:
        """Train to a step with our types, or others given, on top of the tiny options."""
        path = self.folder / name
        given = {**TINY, **OURS, **self.data(), "save_model": path, "train_steps": steps,
                 **options}  # fmt: skip
        run = self.run(arguments(given), path)
        assert not run.unknown
        return run

    def run(self, args: list[str], path: Path) -> Training:
        """Run ``onmt_train`` with a command line, which writes to ``path``."""
        from onmt.bin import train as command
        from onmt.trainer import Trainer
        from onmt.utils.statistics import Statistics

        run = Training(path)
        accumulate, validate = Trainer._gradient_accumulation, Trainer.validate

        def recorded(self: Any, batches: Any, normalization: Any, total: Any, report: Any) -> None:
            step, mine = self.optim.training_step, Statistics()
            used = (self.model.encoder, self.model.decoder, self.train_loss)
            run.parts = tuple(type(part).__module__ for part in used)
            run.optimizer = type(self.optim._optimizer).__name__
            accumulate(self, batches, normalization, mine, report)
            total.update(mine, update_n_src_words=True)
            run.updates.append(Counts.of(step, mine))

        def validated(self: Any, *args: Any, **kwargs: Any) -> Any:
            stats = validate(self, *args, **kwargs)
            run.validations.append(Counts.of(self.optim.training_step - 1, stats))
            return stats

        with pytest.MonkeyPatch.context() as patch, contained(run.log):
            patch.setattr(Trainer, "_gradient_accumulation", recorded)
            patch.setattr(Trainer, "validate", validated)
            opt, run.unknown = command._get_parser().parse_known_args(args)
            command.train(opt)
        return run

    def build_vocab(self, **options: Any) -> list[str]:
        """Run ``onmt_build_vocab``, which writes ``src.vocab`` and ``tgt.vocab``: its log."""
        from onmt.bin import build_vocab as command

        vocabularies = {f"{side}_vocab": self.folder / f"{side}.vocab" for side in ("src", "tgt")}
        given = {**vocabularies, "save_data": self.folder / "sample", "n_sample": -1, **options}
        log: list[str] = []
        with contained(log):
            opt, _ = command._get_parser().parse_known_args(arguments(given))
            command.build_vocab_main(opt)
        return log

    def translate(self, *models: Path, source: str | None = None, **options: Any) -> Translation:
        """Translate the test sources, or a text given, on the CPU."""
        from onmt.bin import translate as command

        src, output = self.corpus / "test.src", self.folder / "output"
        if source is not None:
            src = self.folder / "source"
            src.write_text(source)
        given = {"model": list(models), "src": src, "output": output, "gpu": -1, "beam_size": 3,
                 "max_length": 8, **options}  # fmt: skip
        log: list[str] = []
        with contained(log):
            command.translate(command._get_parser().parse_args(arguments(given)))
        return Translation(output.read_text().splitlines(), log)


@contextmanager
def contained(log: list[str]) -> Iterator[None]:
    """Collect onmt's log lines, on one thread; afterwards all is as it was.

    onmt binds its logger to the stderr of the time and lets nothing else listen.
    """

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name == "onmt":
                log.append(record.getMessage())

    onmt, root, collector = logging.getLogger("onmt"), logging.getLogger(), Collector()
    level, handlers = onmt.level, onmt.handlers
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    root.addHandler(collector)
    try:
        yield
    finally:
        root.removeHandler(collector)
        onmt.handlers = handlers
        onmt.setLevel(level)
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def commands_in(plugin: None, corpus: Path) -> Callable[[Path], Commands]:
    """The commands, with a folder to work in."""
    return functools.partial(Commands, corpus)


@pytest.fixture
def commands(commands_in: Callable[[Path], Commands], tmp_path: Path) -> Commands:
    return commands_in(tmp_path)


@pytest.fixture(scope="session")
def untrained(
    commands_in: Callable[[Path], Commands], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """A model of options, whose weights are drawn so large that its translations differ: the path.

    Its target has fewer words than its source, and unknown words and ends are likely.
    """

    @functools.cache
    def untrained(**options: Any) -> Path:
        folder = tmp_path_factory.mktemp("untrained")
        (folder / "few").write_text("".join(f"w{i}\n" for i in range(12)))
        given = {"param_init": 2.0, "learning_rate": 1e-9, "tgt_vocab": folder / "few", **options}
        path = commands_in(folder).train(1, **given).checkpoint()
        checkpoint = torch.load(path, weights_only=False)
        weights = checkpoint["generator"]
        bias = weights["linear.bias" if "linear.bias" in weights else "bias"]
        bias[0], bias[3] = bias[0] + 3.0, bias[3] + 3.5  # <unk> and </s>
        torch.save(checkpoint, path)
        return path

    return untrained
