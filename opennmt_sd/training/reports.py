"""Figures go to every logger; a tracker that fails is left out, and the training goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opennmt_sd.training.bounded import Bounded, UnansweredError
from opennmt_sd.training.loggers import CSV, Logger, LoggerError
from opennmt_sd.training.stopping import Stopped

log = logging.getLogger(__name__)

METRICS = "metrics.csv"


class Reports:
    """The loggers of a training while it runs."""

    def __init__(self) -> None:
        self.running: list[Logger] = []

    @contextmanager
    def to(
        self, loggers: Sequence[Logger], update: int, config: Mapping[str, Any]
    ) -> Iterator[None]:
        """Begin with these loggers, and end them however the training ends.

        Raises:
            LoggerError: a tracker cannot start.
        """
        failed = True
        try:
            for logger in loggers:
                self._start(logger, update, config)
            yield
            failed = False
        except Stopped:
            failed = False
            raise
        finally:
            for logger in self.running:
                try:
                    logger.close(failed)
                except Exception as error:
                    if not isinstance(logger, Bounded):
                        raise
                    log.warning(f"{logger.name} cannot end its run: {error}")

    def log(self, update: int, figures: Mapping[str, float]) -> None:
        """Hand figures of an update to every logger."""
        for logger in list(self.running):
            try:
                logger.log(update, figures)
            except Exception as error:
                if not isinstance(logger, Bounded):
                    raise
                # A server that is away for a while must not end a training of days.
                self.running.remove(logger)
                log.warning(f"{logger.name} fails and is left out from here on: {error}")

    def _start(self, logger: Logger, update: int, config: Mapping[str, Any]) -> None:
        if isinstance(logger, CSV):  # a file of ours: it cannot be left out
            logger.start(update, config)
            self.running.append(logger)
            return
        bounded = Bounded(logger)
        try:
            bounded.start(update, config)
        except UnansweredError as error:
            log.warning(
                f"{bounded.name} is left out: {error}. Is its server away? {METRICS} has all of it"
            )
        except Exception as error:
            raise LoggerError(
                f"{bounded.name} cannot start: {error}. Leave it out, or mend it"
            ) from error
        else:
            self.running.append(bounded)
