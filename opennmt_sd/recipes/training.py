"""From a configuration to a training: what the recipes share."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate, to_absolute_path
from omegaconf import DictConfig, OmegaConf

from opennmt_sd import atomic, ops
from opennmt_sd.config.checks import resume_source
from opennmt_sd.config.places import settled
from opennmt_sd.extras import extra
from opennmt_sd.nn.precision import engine_of
from opennmt_sd.ops.cpu import bfloat16
from opennmt_sd.recipes.record import alone_in, begin, run_folder, write_record
from opennmt_sd.training import seeds
from opennmt_sd.training.loggers import CSV, Logger, LoggerError
from opennmt_sd.training.loop import Trainer
from opennmt_sd.training.meter import DivergedError
from opennmt_sd.training.outcome import Outcome
from opennmt_sd.training.plots import plot_curves
from opennmt_sd.training.position import Plan
from opennmt_sd.training.ranks import is_first_process
from opennmt_sd.training.recipe import Recipe
from opennmt_sd.training.reports import METRICS
from opennmt_sd.training.schedules import constant, inverse, step_down
from opennmt_sd.training.task import Task

with extra("train"):
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

log = logging.getLogger(__name__)

# What a resumed training may have otherwise than the checkpoint: where, how long, what is shown.
MAY_CHANGE = (
    "name",
    "mode",
    "resume",
    "checkpoint",
    "split",
    "sample",
    "logger",
    "trainer",
    "direction",
)


def ready(cfg: DictConfig, paths: Sequence[str]) -> DictConfig:
    """Return a configuration with these paths absolute, from the folder in which the command was
    started, and write the record of the run."""
    cfg = cfg.copy()
    cfg.data = settled(cfg.data)
    for key in paths:
        if not OmegaConf.is_missing(cfg, key) and (value := OmegaConf.select(cfg, key)):
            OmegaConf.update(cfg, key, to_absolute_path(str(value)))
    begin(cfg)
    return cfg


def fabric_for(trainer: DictConfig) -> Fabric:
    """Make a Fabric and launch it: it starts the other processes, where there are several.

    Under torchrun (its variables are in the environment) the number of processes is torchrun's.
    """
    devices, nodes = trainer.devices, 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["GROUP_WORLD_SIZE"])
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    # This option keeps the buckets as they are from the first update on, so that sums over ranks
    # have one order and a resumed training equals one that was never stopped. Of two the order
    # does not matter.
    several = DDPStrategy(find_unused_parameters=devices * nodes > 2)
    fabric = Fabric(
        accelerator=trainer.accelerator,
        devices=devices,
        num_nodes=nodes,
        precision=_precision(trainer),
        strategy=several if devices * nodes > 1 else "auto",
    )
    fabric.launch()
    if trainer.matmul_precision is not None:
        torch.set_float32_matmul_precision(trainer.matmul_precision)
    if trainer.threads is not None:
        torch.set_num_threads(trainer.threads)
    ops.use(trainer.engine)
    return fabric


def _precision(trainer: DictConfig) -> Any:
    """Return the precision to train in: on a CPU that has no bfloat16, where mixed precision is
    slower than float32, that."""
    if trainer.precision != "bf16-mixed" or bfloat16.known():
        return trainer.precision
    if Fabric(accelerator=trainer.accelerator, devices=1).device.type != "cpu":
        return trainer.precision
    log.info(f"trainer.precision=bf16-mixed: float32 instead, for {bfloat16.MISSING}")
    return "32-true"


def recipe_for(optim: DictConfig) -> Recipe:
    """Return how the weights are changed."""
    schedule = optim.schedule
    return Recipe(
        optimizer="sgd" if optim.name == "nt_asgd" else optim.name,
        lr=optim.lr,
        momentum=optim.momentum,
        betas=tuple(optim.betas),
        weight_decay=optim.weight_decay,
        clip=optim.clip,
        schedule={
            "constant": constant,
            "step_down": step_down(
                constant_epochs=schedule.constant_epochs, factor=schedule.factor
            ),
            "inverse": inverse(decay=schedule.decay),
        }[schedule.name],
        non_monotone=optim.non_monotone if optim.name == "nt_asgd" else None,
    )


def plan_for(cfg: DictConfig, measure: str) -> Plan:
    """Return how long to train, and what to do on the way."""
    names = {field.name for field in dataclasses.fields(Plan)}
    values = {key: value for key, value in cfg.trainer.items() if key in names}
    return Plan(**values, seed=cfg.seed, measure=measure)


@contextmanager
def started(cfg: DictConfig) -> Iterator[Fabric]:
    """Start the processes of a training, alone in Hydra's folder of the run, and seed torch's
    generators, on every rank alike: then weights are made."""
    # Before other processes start: they would wait for the first one.
    alone = alone_in(run_folder(), cfg.name) if is_first_process() else nullcontext()
    with alone, _matmul_precision_kept():
        fabric = fabric_for(cfg.trainer)
        seeds.seed_all(seeds.derive(cfg.seed, "weights"))
        yield fabric


@contextmanager
def _matmul_precision_kept() -> Iterator[None]:
    """Leave torch's switch as it was: the next run of a sweep may not set it."""
    before = torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        if torch.get_float32_matmul_precision() != before:
            torch.set_float32_matmul_precision(before)


def fit(
    cfg: DictConfig,
    fabric: Fabric,
    task: Task,
    *,
    constants: Mapping[str, Any],
    measure: str = "loss",
    places: Sequence[str] = (),
    added: Mapping[str, Any] | None = None,
) -> Outcome:
    """Train as configured, in Hydra's folder of the run.

    Args:
        cfg: with ``seed``, ``resume``, ``optim``, ``trainer`` and ``logger``; validated.
        fabric: of :func:`started`.
        task: the model with its data, of this rank.
        constants: what belongs to its weights.
        measure: ``"loss"`` or ``"perplexity"``: what is shown of training.
        places: further keys that a resumed training may have otherwise: where its data lie.
        added: see ``Trainer``.

    Raises:
        What ``Trainer.run`` and ``Trainer.resume`` raise.
    """
    folder = Path(fabric.broadcast(str(run_folder())))
    loggers = [CSV(folder / METRICS), *(_logger(name, node) for name, node in cfg.logger.items())]
    config = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
    trainer = Trainer(
        task,
        fabric=fabric,
        recipe=recipe_for(cfg.optim),
        plan=plan_for(cfg, measure),
        folder=folder,
        loggers=loggers,
        config=config,
        may_change=(*MAY_CHANGE, *places),
        added=added,
        constants=constants,
    )
    source = resume_source(cfg.resume, folder)
    if source and (cfg.resume != "auto" or source.exists()):
        trainer.resume(source)
    elif source:
        log.info(f"resume=auto: there is no {source} yet, so this is the beginning")
    count = sum(parameter.numel() for parameter in task.model.parameters())
    with fabric.autocast():
        log.info(f"{count:,} parameters; engine {engine_of(task.model)}; to {folder}")
    if fabric.is_global_zero:
        write_record(cfg)
    outcome = trainer.run()
    if fabric.is_global_zero:
        picture = folder / "curves.png"
        plot_curves(folder / METRICS, picture, measure=measure, score=task.score, mode=task.mode)
        result = {f"valid/{task.score}": outcome.score, "update": outcome.update}
        result |= {f"test/{name}": value for name, value in outcome.test.items()}
        atomic.write_text(folder / "result.json", json.dumps(result, indent=2) + "\n")
    return outcome


def score_or_worst(run: Callable[[], float], mode: str) -> float:
    """Run; in a sweep, a run that diverges counts as the worst, and the sweep goes on."""
    try:
        return run()
    except DivergedError as error:
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            raise
        log.warning(f"Counts as the worst: {error}")
        return float("inf") if mode == "min" else float("-inf")


def _logger(name: Any, node: DictConfig) -> Logger:
    try:
        return cast("Logger", instantiate(node))
    except InstantiationException as error:
        what = " ".join(str(error).splitlines()[:-1])  # the last line is the key
        raise LoggerError(f"logger.{name} cannot be made: {what}") from error
