"""From a configuration to a training: what the language model's main and the tagger's share."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate, to_absolute_path
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from omegaconf import DictConfig, OmegaConf

from opennmt_sd import ops
from opennmt_sd.training import seeds
from opennmt_sd.training.loggers import CSV
from opennmt_sd.training.loop import LAST, METRICS, Outcome, Trainer
from opennmt_sd.training.meter import DivergedError
from opennmt_sd.training.plots import plot_curves
from opennmt_sd.training.position import Plan
from opennmt_sd.training.recipe import Recipe
from opennmt_sd.training.schedules import constant, inverse, step_down
from opennmt_sd.training.task import Task

log = logging.getLogger(__name__)

# What a resumed training may have otherwise than the checkpoint: where, how long, what is shown.
MAY_CHANGE = ("name", "mode", "resume", "checkpoint", "split", "sample", "logger", "trainer")


def run_folder() -> Path:
    """Hydra's folder of this run."""
    return Path(HydraConfig.get().runtime.output_dir)


def fabric_for(trainer: DictConfig) -> Fabric:
    """Fabric, launched: it starts the other processes, where there are several.

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
        precision=trainer.precision,
        strategy=several if devices * nodes > 1 else "auto",
    )
    fabric.launch()
    if trainer.threads is not None:
        torch.set_num_threads(trainer.threads)
    ops.use(trainer.engine)
    return fabric


def recipe_for(optim: DictConfig) -> Recipe:
    """How the weights are changed."""
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
    """How long to train, and what to do on the way."""
    names = {field.name for field in dataclasses.fields(Plan)}
    values = {key: value for key, value in cfg.trainer.items() if key in names}
    return Plan(**values, seed=cfg.seed, measure=measure)


def fit(
    cfg: DictConfig,
    *,
    build: Callable[[int, int], tuple[Task, Mapping[str, Any]]],
    measure: str = "loss",
    places: Sequence[str] = (),
) -> tuple[Outcome, Task, Fabric]:
    """Train as configured, in Hydra's folder of the run.

    Args:
        cfg: with ``seed``, ``resume``, ``optim``, ``trainer`` and ``logger``; validated.
        build: makes the task and the constants that belong to its weights, for a rank and a
            number of ranks. The default generators are seeded, on every rank alike.
        measure: ``"loss"`` or ``"perplexity"``: what is shown of training.
        places: further keys that a resumed training may have otherwise: where its data lie.

    Raises:
        What ``Trainer.run`` and ``Trainer.resume`` raise, and ``build``.
    """
    fabric = fabric_for(cfg.trainer)
    folder = Path(fabric.broadcast(str(run_folder())))
    seeds.seed_all(seeds.derive(cfg.seed, "weights"))
    task, constants = build(fabric.global_rank, fabric.world_size)
    loggers = [CSV(folder / METRICS), *(instantiate(node) for node in cfg.logger.values())]
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
        constants=constants,
    )
    source = folder / LAST if cfg.resume == "auto" else cfg.resume and _absolute(cfg.resume)
    if source and (cfg.resume != "auto" or source.exists()):
        trainer.resume(source)
    count = sum(parameter.numel() for parameter in task.model.parameters())
    log.info(f"{count:,} parameters; engine {ops.engine_for(fabric.device.type)}; to {folder}")
    outcome = trainer.run()
    if fabric.is_global_zero:
        picture = folder / "curves.png"
        plot_curves(folder / METRICS, picture, measure=measure, score=task.score, mode=task.mode)
        result = {f"valid/{task.score}": outcome.score, "update": outcome.update}
        result |= {f"test/{name}": value for name, value in outcome.test.items()}
        (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return outcome, task, fabric


def score_or_worst(run: Callable[[], float], mode: str) -> float:
    """A run's score. In a sweep, a run that diverges counts as the worst and the sweep goes on."""
    try:
        return run()
    except DivergedError as error:
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            raise
        log.warning(f"Counts as the worst: {error}")
        return float("inf") if mode == "min" else float("-inf")


def _absolute(path: str) -> Path:
    return Path(to_absolute_path(path))
