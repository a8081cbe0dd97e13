"""How the plugin gets into Eole: five functions that are wrapped.

Eole builds, initialises and loads a model by itself; then, as its optimizer is made, the model's
dropout is taken over. So one seed gives stock's initial weights, and checkpoints are stock's.
Evaluation and prediction never come here: they know no options of ours.
"""

from __future__ import annotations

import functools
from argparse import Namespace
from importlib import import_module
from pathlib import Path
from typing import Any

from opennmt_sd.eole.compat import check_version
from opennmt_sd.eole.options import (
    choices_of,
    complete_options,
    keep_choices,
    move_options,
    options_of,
)
from opennmt_sd.eole.refusals import check_training
from opennmt_sd.ops import calibration
from opennmt_sd.seq2seq.dropout_schedule import Schedule
from opennmt_sd.seq2seq.fused_adam import FusedAdam
from opennmt_sd.seq2seq.options import DEFAULTS
from opennmt_sd.seq2seq.plain_errors import show_plainly
from opennmt_sd.seq2seq.refusals import UnsupportedOptionsError
from opennmt_sd.seq2seq.wrapping import Function, wrap


def register_plugin() -> None:
    """See :func:`opennmt_sd.eole.register`."""
    check_version()
    training = import_module("eole.train_single")
    wrap(training.TrainConfig, "__init__", _with_options)
    wrap(training.TrainingInitializer, "_update_config_with_metadata", _checked)
    wrap(training.Optimizer, "from_config", _with_our_model)
    wrap(import_module("eole.utils.loss").LossCompute, "from_config", _with_our_loss)
    wrap(import_module("eole.models.model_saver").TrainingModelSaver, "save", _with_choices)


def _with_options(init: Function) -> Function:
    """`TrainConfig.__init__`: of a YAML file, of a checkpoint, and of both together."""

    @functools.wraps(init)
    def wrapped(self: Any, /, **data: Any) -> None:
        show_plainly((UnsupportedOptionsError,), _is_command)
        if isinstance(data.get("model"), str):  # from the command line, as stock reads it
            data["model"] = type(self).str_to_dict(data["model"])
        given = data.get("model")
        faults = move_options(data)
        if faults:
            raise UnsupportedOptionsError(faults)
        init(self, **data)
        # Of a run that resumes, the model is the checkpoint's: see `_checked`.
        if data.get("model") is not given and not self.training.train_from:
            check_training(self)

    return wrapped


def _checked(update: Function) -> Function:
    """`TrainingInitializer._update_config_with_metadata`: the last word on a configuration, before
    vocabularies and data are read."""

    @functools.wraps(update)
    def wrapped(self: Any, metadata: Any) -> Any:
        # Read first: the two become one, the checkpoint's.
        before = options_of(metadata["config"]) if metadata else None
        asked = options_of(self.config) or {}
        config = update(self, metadata)
        complete_options(config, before, asked)
        check_training(config)
        return config

    return wrapped


def _with_our_model(from_config: Function) -> Function:
    """`Optimizer.from_config`: the first that sees a whole model with its whole configuration."""

    @functools.wraps(from_config)
    def wrapped(cls: Any, model: Any, config: Any, metadata: Any = None) -> Any:
        optim = from_config(cls, model, config, metadata=metadata)
        if options_of(config) is not None:
            calibration.take(choices_of(config))
            _take_over(model, config, optim.training_step)
            FusedAdam.take_over(optim._optimizer)
        return optim

    return wrapped


def _take_over(model: Any, config: Any, step: int) -> None:
    """Let a model drop as its configuration says, from a step on, and say so in the log."""
    import torch
    from eole.utils.logging import logger

    from opennmt_sd.eole.model import StructuredModel
    from opennmt_sd.nn.precision import engine_of

    schedule = Schedule.of(config.training)
    options = {**DEFAULTS, **(options_of(config) or {})}
    opt = Namespace(dropout=list(schedule.dropout), seed=config.seed, **options)
    StructuredModel.take_over(model, opt)
    rate = schedule.rate_at(step)
    if rate != schedule.dropout[0]:
        model.update_dropout(rate, schedule.attention_dropout[0])
        logger.info("opennmt_sd: step %d resumes the schedule of dropout: %s", step, schedule)
    if options["sd_matmul_precision"]:
        torch.set_float32_matmul_precision(options["sd_matmul_precision"])
    plan = model.encoder.plan.describe()
    logger.info("opennmt_sd: dropout %s; engine %s", plan, engine_of(model))


def _with_our_loss(from_config: Function) -> Function:
    """`LossCompute.from_config`: in training the generator leaves out what is dropped."""

    @functools.wraps(from_config)
    def wrapped(cls: Any, config: Any, model: Any, vocabs: Any, train: bool = True) -> Any:
        from opennmt_sd.eole.loss import StructuredLossCompute
        from opennmt_sd.eole.model import StructuredModel

        loss = from_config(cls, config, model, vocabs, train=train)
        ours = train and isinstance(model, StructuredModel)
        return StructuredLossCompute.take_over(loss) if ours else loss

    return wrapped


def _with_choices(save: Function) -> Function:
    """`TrainingModelSaver.save`: what was chosen by measurement travels along."""

    @functools.wraps(save)
    def wrapped(self: Any, *given: Any, **named: Any) -> None:
        if options_of(self.config) is not None:
            keep_choices(self.config, calibration.in_force())
        save(self, *given, **named)

    return wrapped


def _is_command(program: Path) -> bool:
    """Return whether the process is ``eole``, or ``python -m eole.bin.main``."""
    return program.name == "eole" or program.parts[-3:-1] == ("eole", "bin")
