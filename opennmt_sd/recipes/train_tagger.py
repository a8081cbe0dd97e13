"""The tagger's recipe: train, evaluate, predict."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from opennmt_sd import atomic
from opennmt_sd.config.checks import Checks, check_mode, check_run
from opennmt_sd.config.places import (
    PLACES,
    check_training_places,
    given_data,
    overridden,
    split_given,
)
from opennmt_sd.config.tagger import MODES
from opennmt_sd.data.textfile import check_encoding
from opennmt_sd.recipes.record import run_folder
from opennmt_sd.recipes.training import fabric_for, fit, ready, score_or_worst, started
from opennmt_sd.tagger import conll, files, page
from opennmt_sd.tagger.card import Card
from opennmt_sd.tagger.chars import parity
from opennmt_sd.tagger.columns import Columns
from opennmt_sd.tagger.conll import Corpus
from opennmt_sd.tagger.corpora import (
    Corpora,
    coverage,
    files_in,
    read_vectors,
    tell_of_new_types,
)
from opennmt_sd.tagger.model import Tagger, TaggerConfig, load_vectors
from opennmt_sd.tagger.scores import score
from opennmt_sd.tagger.task import TaggerTask
from opennmt_sd.tagger.trained import FILE, Trained, file_of
from opennmt_sd.tagger.vocabulary import Vocabulary
from opennmt_sd.training import checkpoint
from opennmt_sd.training.checkpoint import CheckpointError

log = logging.getLogger(__name__)

PATHS = (
    *PLACES, "data.glove", "checkpoint", "predict.input", "predict.output", "predict.html",
)  # fmt: skip
READING = ("data.columns", "data.encoding")  # how the files of a data set are read
# The pattern of each place, by its name in TaggerConfig, and by its key.
DROPOUT = {
    "input_dropout": "nr", "dropout": "nr", "recurrent_dropout": "rh", "output_dropout": "fc",
}  # fmt: skip
# In checkpoints of before there was a choice; the latter of what belongs to the weights.
ADDED = {
    "model.cell": "lstm",
    **{f"model.dropout.{place}.count": "bernoulli" for place in DROPOUT.values()},
    "tagger.config.cell": "lstm",
    **{f"tagger.config.{name}.count": "bernoulli" for name in DROPOUT},
}
CARD, PREDICTED = "README.md", "predicted.conll"


def run(cfg: DictConfig) -> float | None:
    """Do what ``cfg.mode`` says.

    Returns:
        The best F1 on the validation data, for a sweeper to maximise; with mode=evaluate that of
        the split; with mode=predict None.

    Raises:
        ConfigError: with every fault of the configuration.
        TextError, CheckpointError: a file that cannot be used.
        Stopped, SaveError, LoggerError, OSError: see ``Trainer.run``.
    """
    cfg = ready(cfg, PATHS)
    validate(cfg, run_folder())
    if cfg.mode == "train":
        return score_or_worst(lambda: train(cfg), "max")
    if cfg.mode == "evaluate":
        return evaluate(cfg)
    predict(cfg)
    return None


def validate(cfg: DictConfig, folder: Path) -> None:
    """Refuse what cannot work.

    Args:
        folder: of the run.

    Raises:
        ConfigError: with every fault.
    """
    checks = Checks(cfg)
    check_run(checks, folder)
    check_mode(checks, MODES, "tagger.pt or best.pt")
    columns = _check_columns(checks)
    if checks.value("mode") == "train":
        _check_model(checks)
        check_training_places(checks)
        glove = checks.value("data.glove")
        if glove is not None and not Path(glove).is_file():
            checks.fault("data.glove", "there is no such file")
    elif checks.value("mode") == "predict":
        source = checks.value("predict.input")
        if source is None:
            checks.fault("predict.input", "mode=predict needs a file: CoNLL columns, or .txt")
        elif not Path(source).exists():
            checks.fault("predict.input", "there is no such file")
        elif not Path(source).is_file():
            checks.fault("predict.input", "is no ordinary file, and it is read more than once")
        else:
            _check_outputs(checks, Path(source), columns)
    checks.finish()


def _check_columns(checks: Checks) -> Columns | None:
    """Refuse what is no column and no encoding; give the rest."""
    try:
        check_encoding(checks.value("data.encoding"))
    except ValueError as error:
        checks.faults.append(f"data.{error}")
        return None
    try:
        return columns_of(checks.cfg.data)
    except ValueError as error:
        checks.faults.append(f"data.columns: {error}")
        return None


def _check_checkpoint(checks: Checks) -> Path | None:
    """Return the file that ``checkpoint`` means, where there is one."""
    given = checks.value("checkpoint")
    if given is None or not Path(given).exists():
        return None
    try:
        return file_of(given)
    except CheckpointError as error:
        checks.faults.append(f"checkpoint={error}")
        return None


def _check_outputs(checks: Checks, source: Path, columns: Columns | None) -> None:
    taken = {source.resolve()}
    if (model := _check_checkpoint(checks)) is not None:
        taken.add(model.resolve())
    for key in ("predict.output", "predict.html"):
        if (value := checks.value(key)) is None:
            continue
        path = Path(value)
        if path.is_dir():
            checks.fault(key, "is a folder: name a file in it")
        elif not path.parent.is_dir():
            checks.fault(key, "there is no such folder to write it to")
        elif path.resolve() in taken:
            checks.fault(key, "would overwrite another file of this run: take another name")
        elif path.suffix == ".pt":
            checks.fault(key, "is a checkpoint's name, and what is written is text: take another")
        taken.add(path.resolve())
    if files.is_text(source, checks.value("predict.format"), columns):
        try:
            from opennmt_sd.tagger import spacy

            spacy.tokenize("", checks.value("predict.language"))
        except ImportError as error:
            checks.fault("predict.language", f"plain text needs spaCy's tokenizer: {error}")


def _check_model(checks: Checks) -> None:
    sizes = [checks.value(f"model.{name}") for name in ("chars", "char_width", "char_window")]
    if None not in sizes and (wrong := parity(*sizes)):
        name, (rule, why) = wrong
        checks.fault(f"model.char_{name}", f"must be {rule} for chars={sizes[0]}: {why}")


def train(cfg: DictConfig) -> float:
    """Train; print the scores; write curves, result, the tagger and its card into the run's folder.

    Returns:
        The best F1 on the validation data.
    """
    data, corpora = cfg.data, corpora_of(cfg.data, test=cfg.trainer.test)
    vectors = read_vectors(data.glove, cfg.model.word_dim) if data.glove else {}
    vocabulary = corpora.vocabulary(
        scheme=data.scheme, vectors=vectors, lower=data.lower, digits=data.digits
    )
    covered = coverage(corpora.train, vocabulary, vectors)
    log.info(
        f"{len(vocabulary.words):,} words of training, {len(vocabulary.unseen):,} more with a "
        f"vector only, {len(vocabulary.chars):,} characters, {len(vocabulary.tags):,} tags in "
        f"{vocabulary.scheme.upper()}"
    )
    for name, corpus in (corpora.there if vectors else {}).items():
        share = coverage(corpus, vocabulary, vectors)
        log.info(f"Word vectors cover {share:.1%} of the words of {name}")
    with started(cfg) as fabric:
        model = Tagger(model_config(cfg.model), vocabulary)
        load_vectors(model.words, vocabulary, vectors)
        trained = Trained(model, vocabulary)
        task = task_of(cfg, model, vocabulary, corpora, fabric.global_rank, fabric.world_size)
        outcome = fit(
            cfg, fabric, task, constants=trained.constants(), added=ADDED,
            places=(*PLACES, *READING, "data.glove", "predict"),
        )  # fmt: skip
    if fabric.is_global_zero:
        folder = outcome.checkpoint.parent
        latest = {name: s for name, s in task.latest.items() if name == "test"}
        found = {"valid": task.scores("valid"), **latest}
        for name, scores in found.items():
            log.info(f"{name}, best weights:\n{scores}")
        trained.save(folder / FILE, OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
        config = OmegaConf.to_yaml(cfg, resolve=True)
        card = Card(trained, corpora, found, data.glove, covered, config)
        atomic.write_text(folder / CARD, str(card))
        test = f", test {outcome.test['f1']:.2f}" if outcome.test else ""
        log.info(f"F1: valid {outcome.score:.2f} (update {outcome.update:,}){test}. "
                 f"Tagger: {folder / FILE}, its card: {folder / CARD}")  # fmt: skip
    return outcome.score


def evaluate(cfg: DictConfig) -> float:
    """Print a tagger's scores on ``cfg.split``, of its own data or of others that are given. No
    other data are read.

    Returns:
        The F1.
    """
    fabric = fabric_for(cfg.trainer)
    trained = _trained(cfg.checkpoint)
    data = split_given(cfg.data, _data_of(cfg.checkpoint), cfg.split)
    if set(PLACES) & {f"data.{key}" for key in given_data()}:
        data.encoding = cfg.data.encoding  # others of these files nobody has spoken of
    corpus = split_of(data, cfg.split)
    tell_of_new_types(corpus, trained.vocabulary.types)
    fabric.to_device(trained.model)
    tags = trained.tags([s.words for s in corpus.sentences], cfg.data.eval_batch_size)
    scores = score(corpus.in_scheme(trained.vocabulary.scheme), tags)
    log.info(f"{cfg.checkpoint}: {corpus.name}\n{scores}")
    return scores.all.f1


def predict(cfg: DictConfig) -> None:
    """Tag a file: CoNLL columns (a column more comes out), or plain text (spaCy tokenises it)."""
    fabric = fabric_for(cfg.trainer)
    trained = _trained(cfg.checkpoint)
    fabric.to_device(trained.model)
    what = cfg.predict
    columns = columns_of(overridden(cfg.data, _data_of(cfg.checkpoint)))
    columns = replace(columns, encoding=cfg.data.encoding)  # this file's, not the training's
    tagged = files.tag(
        trained, Path(what.input), kind=what.format, language=what.language, columns=columns,
        batch_size=cfg.data.eval_batch_size,
    )  # fmt: skip
    output = Path(what.output) if what.output else run_folder() / PREDICTED
    atomic.write_text(output, tagged.text)
    log.info(f"{output}: {len(tagged.sentences):,} sentences, their tags in the last column")
    if tagged.scores is not None:
        log.info(f"Against the tags in {what.input}:\n{tagged.scores}")
    if what.html is not None:
        title = f"Entities in {Path(what.input).name}"
        html = page.html(
            tagged.sentences, tagged.tags, title, language=what.language, spaces=tagged.spaces
        )
        atomic.write_text(Path(what.html), html)
        log.info(f"{what.html}: the same, to look at")


def _trained(path: str) -> Trained:
    """Load a tagger; what was made by hand is refused as such."""
    with checkpoint.understood(Path(path)):
        return Trained.load(path)


def _data_of(path: str) -> DictConfig:
    """Return the ``data`` of a checkpoint's training; without places where it does not say (from a
    spaCy pipeline, for instance)."""
    before = checkpoint.read(file_of(path)).get("config", {}).get("data")
    return OmegaConf.create(before or {"path": "???", "train": None, "valid": None, "test": None})


def columns_of(data: Any) -> Columns:
    """Return how column files are read; a checkpoint of before that was a choice says nothing."""
    return Columns(**(data.get("columns") or {}), encoding=data.get("encoding") or "utf-8")


def corpora_of(data: Any, *, test: bool = True) -> Corpora:
    """Read the corpora that ``data`` names; ``test``: whether the test data are wanted."""
    columns = columns_of(data)
    if data.train is not None:
        of_test = data.test if test else None
        return Corpora.files(data.train, data.valid, of_test, columns=columns)
    return Corpora.folder(data.path, columns, test=test)


def split_of(data: Any, split: str) -> Corpus:
    """Read one corpus of those that ``data`` names."""
    file = data[split] or files_in(data.path, [split])[split]
    return conll.read(file, columns_of(data))


def model_config(model: DictConfig) -> TaggerConfig:
    """Make a ``TaggerConfig``."""
    plain: Any = OmegaConf.to_container(model, resolve=True)
    dropout = plain.pop("dropout")
    plain["char_dropout"] = dropout["chars"]
    plain |= {name: dropout[place] for name, place in DROPOUT.items()}
    return TaggerConfig.from_dict(plain)


def task_of(
    cfg: DictConfig, model: Tagger, vocabulary: Vocabulary, corpora: Corpora, rank: int, size: int
) -> TaggerTask:
    """Make the task of training a model on these data."""
    data = cfg.data
    return TaggerTask(
        model, vocabulary, **vars(corpora), batch_size=data.batch_size,
        eval_batch_size=data.eval_batch_size, reduction=cfg.optim.reduction, unknown=data.unknown,
        seed=cfg.seed, rank=rank, world_size=size,
    )  # fmt: skip
