"""A search that goes on where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from opennmt_sd.training.seeds import derive


class Sampler(BaseSampler):
    """optuna's TPE, whose draws for a trial follow from the seed and the trial's number alone.

    So a study that is kept goes on as one that was never stopped: optuna's own sampler begins anew
    with its seed, and repeats the first trials.

    Args:
        seed: None draws one.
        options: further ones of ``TPESampler``.
    """

    def __init__(self, seed: int | None = None, **options: Any) -> None:
        self.seed, self.options = seed, options
        self._samplers: dict[int, TPESampler] = {}  # of the trials that run

    def _of(self, trial: FrozenTrial) -> TPESampler:
        if trial.number not in self._samplers:
            seed = None if self.seed is None else derive(self.seed, "trial", trial.number)
            self._samplers[trial.number] = TPESampler(seed=seed, **self.options)
        return self._samplers[trial.number]

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._of(trial).after_trial(study, trial, state, values)
        del self._samplers[trial.number]
