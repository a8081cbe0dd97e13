"""What ``opennmt_sd_train_lm`` does: train, evaluate or sample a language model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from opennmt_sd.cli.errors import ConfigError, guarded
from opennmt_sd.cli.record import begin, run_folder
from opennmt_sd.cli.trainer import (
    PLACES,
    absolute,
    data_given,
    fabric_for,
    fit,
    score_or_worst,
)
from opennmt_sd.cli.validate import FILES, Checks, check_mode, check_places, check_training
from opennmt_sd.dropout import DropoutPattern
from opennmt_sd.lm.data import Corpus, CorpusError
from opennmt_sd.lm.model import LanguageModel
from opennmt_sd.lm.sample import prompt_ids
from opennmt_sd.lm.sample import sample as written
from opennmt_sd.lm.task import LMTask
from opennmt_sd.lm.vocabulary import Vocabulary
from opennmt_sd.training import checkpoint
from opennmt_sd.training.loop import BEST

log = logging.getLogger(__name__)

COMMAND = "train_lm"
MODES = ("train", "evaluate", "sample")
SPLITS = ("valid", "test")
REDUCTIONS = ("mean", "sum_over_time")
PATTERNS = ("nr", "rh", "fc", "input", "words")
PATHS = (*PLACES, "checkpoint")


def run(cfg: DictConfig) -> float | None:
    """Do what ``cfg.mode`` says.

    Returns:
        The best perplexity on the validation data, for a sweeper to minimise; with mode=evaluate
        that of the split; with mode=sample None.

    Raises:
        SystemExit: it cannot; the text is printed. Exit codes: ``opennmt_sd.cli.errors``.
    """
    return guarded(COMMAND, lambda: _run(absolute(cfg, PATHS)), unusable=(CorpusError,))


def _run(cfg: DictConfig) -> float | None:
    begin(cfg)
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
    check_training(checks, folder)
    check_mode(checks, MODES, "best.pt or last.pt")
    checks.choice("split", SPLITS)
    if checks.value("direction") != "minimize":
        checks.fault("direction", "perplexity is better when lower: minimize")
    checks.choice("optim.reduction", REDUCTIONS)
    checks.counts("data.batch_size", "data.unroll", "data.eval_batch_size", "data.test_batch_size")
    checks.counts("sample.words", "sample.top_k", least=0)
    checks.within("sample.temperature", "must be 0 or more; 0 takes the likeliest word", 0)
    checks.within("sample.seed", "must lie in [0, 2**32)", 0, 2**32)
    if checks.value("mode") == "train":
        _check_model(checks)
        check_places(checks)
    checks.finish()


def _check_model(checks: Checks) -> None:
    for name in PATTERNS:
        checks.pattern(f"model.dropout.{name}")
    checks.rate("model.dropout.weight")
    checks.counts("model.embedding", "model.layers")
    checks.positive("model.init", "the bound of the first weights; null has other rules")
    checks.within("model.ar", "must be 0 or more", 0)
    checks.within("model.tar", "must be 0 or more", 0)
    hidden, layers = checks.value("model.hidden"), checks.value("model.layers")
    widths = [hidden] if isinstance(hidden, int) else hidden
    if widths is None:
        return
    if not (OmegaConf.is_list(widths) or isinstance(widths, list)) or not all(
        isinstance(width, int) and width > 0 for width in widths or [0]
    ):
        checks.fault("model.hidden", "must be a width of 1 or more, or a list of them: [64,32]")
        return
    if not isinstance(hidden, int) and layers not in (None, len(widths)):
        checks.fault("model.layers", f"contradicts model.hidden={hidden}: leave it null")
    embedding = checks.value("model.embedding")
    if checks.value("model.tied") and embedding not in (None, widths[-1]):
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
    corpus = corpus_of(cfg.data)
    check_prompt(cfg, corpus.vocabulary)  # now, not at the end
    log.info(str(corpus))

    def build(rank: int, world_size: int) -> tuple[LMTask, dict[str, Any]]:
        model = model_of(cfg.model, len(corpus.vocabulary))
        constants = {
            "vocabulary": list(corpus.vocabulary.words),
            "words": {name: len(getattr(corpus, name)) for name in FILES},
        }
        return task_of(cfg, model, corpus, rank, world_size), constants

    outcome, task, fabric = fit(cfg, build=build, measure="perplexity", places=PLACES)
    if fabric.is_global_zero:
        test = f", test {outcome.test['perplexity']:.2f}" if outcome.test else ""
        log.info(
            f"Perplexity: valid {outcome.score:.2f} (update {outcome.update:,}){test}. "
            f"Best weights: {outcome.checkpoint}"
        )
        if cfg.sample.words:
            write_text(cfg, cast("LanguageModel", task.model), corpus.vocabulary)
    return outcome.score


def evaluate(cfg: DictConfig) -> float:
    """Print a checkpoint's scores on ``cfg.split``, of its own data or of others that are given.

    Returns:
        The perplexity.
    """
    fabric = fabric_for(cfg.trainer)
    state, model, vocabulary = load(cfg.checkpoint)
    before = OmegaConf.create(state["config"])
    before.data = data_given(cfg.data, before.data)
    corpus = corpus_of(before.data)
    if corpus.vocabulary != vocabulary:
        raise CorpusError(
            f"{cfg.checkpoint} was trained with {len(vocabulary):,} words, these data have "
            f"{len(corpus.vocabulary):,}, or others: name the data of its training "
            "(data.path=...), which may lie elsewhere now"
        )
    task = task_of(before, model, corpus, 0, 1)
    scores = task.evaluate(fabric.setup(model), cfg.split)
    text = ", ".join(f"{name} {value:.5g}" for name, value in scores.items())
    log.info(f"{cfg.checkpoint}: {cfg.split} {text}")
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
    """Content, model and vocabulary of a checkpoint.

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
        vocabulary = Vocabulary(state["constants"]["vocabulary"])
        model = model_of(OmegaConf.create(state["config"]["model"]), len(vocabulary))
        model.load_state_dict(checkpoint.weights(state))
    return state, model, vocabulary


def corpus_of(data: DictConfig) -> Corpus:
    """The corpus that ``data`` names."""
    if data.train is not None:
        return Corpus.files(data.train, data.valid, data.test)
    return Corpus.load(data.path)


def model_of(model: DictConfig, vocabulary: int) -> LanguageModel:
    """The model that ``model`` describes, over so many words."""
    return LanguageModel(vocabulary, **model_arguments(model))


def model_arguments(model: DictConfig) -> dict[str, Any]:
    """Arguments of ``LanguageModel``."""
    plain = cast("dict[str, Any]", OmegaConf.to_container(model, resolve=True))
    dropout: Mapping[str, Any] = plain.pop("dropout")
    patterns = {name: DropoutPattern(**dropout[name]) for name in PATTERNS}
    return {**plain, **patterns, "weight_drop": dropout["weight"]}


def task_of(
    cfg: DictConfig, model: LanguageModel, corpus: Corpus, rank: int, world_size: int
) -> LMTask:
    """The task of training a model on a corpus."""
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
