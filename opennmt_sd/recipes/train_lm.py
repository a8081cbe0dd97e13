"""The language model's recipe: train, evaluate, sample."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from opennmt_sd.config.checks import Checks, ConfigError, check_mode, check_run
from opennmt_sd.config.lm import MODES
from opennmt_sd.config.places import FILES, PLACES, check_training_places, given_data, overridden
from opennmt_sd.data.textfile import check_encoding
from opennmt_sd.dropout import DropoutPattern
from opennmt_sd.lm.data import Corpus, CorpusError, describe, read
from opennmt_sd.lm.evaluation import Evaluation
from opennmt_sd.lm.model import LanguageModel
from opennmt_sd.lm.places import files_of
from opennmt_sd.lm.sample import prompt_ids
from opennmt_sd.lm.sample import sample as written
from opennmt_sd.lm.task import LMTask
from opennmt_sd.lm.text import CHAR, WORD, Reading
from opennmt_sd.lm.vocabulary import Vocabulary
from opennmt_sd.recipes.record import run_folder
from opennmt_sd.recipes.training import fabric_for, fit, ready, score_or_worst, started
from opennmt_sd.training import checkpoint
from opennmt_sd.training.resuming import BEST

log = logging.getLogger(__name__)

PATTERNS = ("nr", "rh", "fc", "input", "words")
PATHS = (*PLACES, "checkpoint")
# How a text is read. A resumed training may say it otherwise: what matters is its vocabulary.
READING = ("data.level", "data.min_count", "data.max_words", "data.encoding")
# In checkpoints of before there was a choice.
ADDED = {
    "model.cell": "lstm",
    **{f"model.dropout.{place}.count": "bernoulli" for place in PATTERNS},
}


def run(cfg: DictConfig) -> float | None:
    """Do what ``cfg.mode`` says.

    Returns:
        The best perplexity on the validation data, for a sweeper to minimise; with mode=evaluate
        that of the split; with mode=sample None.

    Raises:
        ConfigError: with every fault of the configuration.
        CorpusError, CheckpointError: a file that cannot be used.
        Stopped, SaveError, LoggerError, OSError: see ``Trainer.run``.
    """
    cfg = ready(cfg, PATHS)
    validate(cfg, run_folder())
    if cfg.mode == "train":
        return score_or_worst(lambda: train(cfg), "min")
    if cfg.mode == "evaluate":
        return evaluate(cfg)
    sample(cfg)
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
    check_mode(checks, MODES, "best.pt or last.pt")
    try:
        check_encoding(checks.value("data.encoding"))
    except ValueError as error:
        checks.faults.append(f"data.{error}")
    if checks.value("mode") == "train":
        _check_widths(checks)
        check_training_places(checks)
    checks.finish()


def _check_widths(checks: Checks) -> None:
    hidden, layers = checks.value("model.hidden"), checks.value("model.layers")
    widths = list(hidden) if OmegaConf.is_list(hidden) else [hidden]
    if OmegaConf.is_list(hidden) and layers not in (None, len(widths)):
        checks.fault("model.layers", f"contradicts model.hidden={hidden}: leave it null")
    embedding = checks.value("model.embedding")
    if checks.value("model.tied") and None not in (embedding, hidden) and embedding != widths[-1]:
        checks.fault(
            "model.tied",
            f"needs one width for model.embedding={embedding} and the last of model.hidden="
            f"{hidden}; make them equal, or tied=false",
        )


def train(cfg: DictConfig) -> float:
    """Train; print the perplexities and some text; write curves and result into the run's folder.

    Returns:
        The best perplexity on the validation data.
    """
    corpus = corpus_of(cfg.data, test=cfg.trainer.test)
    check_prompt(cfg, corpus.vocabulary)  # now, not at the end
    for line in corpus.described():
        log.info(line)

    constants = {
        "vocabulary": list(corpus.vocabulary.words),
        "words": {name: len(text) for name, text in corpus.splits.items()},
    }
    with started(cfg) as fabric:
        model = model_of(cfg.model, len(corpus.vocabulary))
        task = task_of(cfg, model, corpus, fabric.global_rank, fabric.world_size)
        outcome = fit(
            cfg, fabric, task, constants=constants, measure="perplexity",
            places=(*PLACES, *READING), added=ADDED,
        )  # fmt: skip
    if fabric.is_global_zero:
        test = f", test {figure(outcome.test['perplexity'], corpus)}" if outcome.test else ""
        log.info(
            f"Perplexity: valid {figure(outcome.score, corpus)} (update {outcome.update:,}){test}. "
            f"Best weights: {outcome.checkpoint}"
        )
        if cfg.sample.words:
            write_text(cfg, model, corpus.vocabulary)
    return outcome.score


def figure(perplexity: float, corpus: Corpus) -> str:
    """Return a perplexity as text; of characters also their bits."""
    bits = f" ({math.log2(perplexity):.3f} bits a character)"
    return f"{perplexity:.2f}{bits if corpus.vocabulary.level == CHAR else ''}"


def evaluate(cfg: DictConfig) -> float:
    """Print a checkpoint's scores on ``cfg.split``, of its own data or of others that are given.

    Words of other data that the model does not know are ``<unk>``. No other text is read.

    Returns:
        The perplexity.
    """
    fabric = fabric_for(cfg.trainer)
    state, model, vocabulary = load(cfg.checkpoint)
    before = OmegaConf.create(state["config"]["data"])
    data = overridden(cfg.data, before)
    moved = set(PLACES) & {f"data.{key}" for key in given_data()}
    encoding = (cfg.data if moved else before).get("encoding", "utf-8")  # this file's
    files = files_of(**places_of(data))
    if cfg.split not in files or not files[cfg.split].is_file():
        raise CorpusError(
            f"split={cfg.split}: {files.get(cfg.split, 'its text')} is not there: name it, "
            f"data.{cfg.split}=FILE, or the folder that holds it, data.path=FOLDER"
        )
    path = files[cfg.split]
    text = read(path, vocabulary, encoding)
    log.info(describe(cfg.split, text.ids, vocabulary, path))
    name = {"valid": "eval_batch_size", "test": "test_batch_size"}[cfg.split]
    evaluation = Evaluation(
        text.ids, data[name], data.unroll, level=vocabulary.level, name=str(path),
        setting=f"data.{name}",
    )  # fmt: skip
    scores = evaluation.run(fabric.setup(model), fabric.device)
    shown = ", ".join(f"{name} {value:.5g}" for name, value in scores.items())
    log.info(f"{cfg.checkpoint}: {cfg.split} {shown}")
    return scores["perplexity"]


def sample(cfg: DictConfig) -> None:
    """Print text of a checkpoint's model."""
    fabric = fabric_for(cfg.trainer)
    _, model, vocabulary = load(cfg.checkpoint)
    check_prompt(cfg, vocabulary)
    write_text(cfg, model.to(fabric.device), vocabulary)


def check_prompt(cfg: DictConfig, vocabulary: Vocabulary) -> None:
    """Refuse a prompt that the model cannot read.

    Raises:
        ConfigError: a word of it is unknown.
    """
    try:
        prompt_ids(cfg.sample.prompt, vocabulary)
    except ValueError as error:
        raise ConfigError([f"sample.prompt={cfg.sample.prompt}: {error}"]) from None


def write_text(cfg: DictConfig, model: LanguageModel, vocabulary: Vocabulary) -> None:
    """Print some text, as ``cfg.sample`` says."""
    print(written(model, vocabulary, **cfg.sample), flush=True)


def load(path: str) -> tuple[dict[str, Any], LanguageModel, Vocabulary]:
    """Read the content, model and vocabulary of a checkpoint.

    Raises:
        CheckpointError: it cannot be read, or is not of a language model.
    """
    file = checkpoint.in_folder(Path(path), BEST)
    state = checkpoint.read(file)
    with checkpoint.understood(file):
        if "vocabulary" not in state["constants"]:
            raise checkpoint.CheckpointError(
                f"{file} is not of a language model: it has no vocabulary"
            )
        level = state["config"]["data"].get("level", WORD)  # of before there were two: words
        vocabulary = Vocabulary(state["constants"]["vocabulary"], level)
        model = model_of(OmegaConf.create(state["config"]["model"]), len(vocabulary))
        model.load_state_dict(checkpoint.weights(state))
    return state, model, vocabulary


def corpus_of(data: DictConfig, *, test: bool = True) -> Corpus:
    """Read the corpus that ``data`` names; ``test``: whether its test text is needed."""
    reading = Reading(data.level, data.min_count, data.max_words, data.encoding)
    return Corpus.read(files_of(**places_of(data)), reading, test=test)


def places_of(data: DictConfig) -> dict[str, Any]:
    """Return where ``data`` says that its texts lie."""
    return {name: data[name] for name in ("path", *FILES)}


def model_of(model: DictConfig, vocabulary: int) -> LanguageModel:
    """Make the model that ``model`` describes, over so many words."""
    return LanguageModel(vocabulary, **model_arguments(model))


def model_arguments(model: DictConfig) -> dict[str, Any]:
    """Return the arguments of ``LanguageModel``."""
    plain = cast("dict[str, Any]", OmegaConf.to_container(model, resolve=True))
    dropout: Mapping[str, Any] = plain.pop("dropout")
    patterns = {name: DropoutPattern(**dropout[name]) for name in PATTERNS}
    return {**plain, **patterns, "weight_drop": dropout["weight"]}


def task_of(
    cfg: DictConfig, model: LanguageModel, corpus: Corpus, rank: int, world_size: int
) -> LMTask:
    """Make the task of training a model on a corpus."""
    data = cfg.data
    return LMTask(
        model,
        corpus,
        batch_size=data.batch_size,
        unroll=data.unroll,
        random_unroll=data.random_unroll,
        sum_over_time=cfg.optim.reduction == "sum_over_time",
        seed=cfg.seed,
        rank=rank,
        world_size=world_size,
        eval_batch_size=data.eval_batch_size,
        test_batch_size=data.test_batch_size,
    )
