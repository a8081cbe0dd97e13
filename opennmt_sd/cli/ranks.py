"""Who speaks: of several processes of one training, the first alone."""

from __future__ import annotations

import logging
import os
import sys

from opennmt_sd.cli.plain import plain
from opennmt_sd.training.ranks import is_first_process


def say(command: str, text: str) -> None:
    """Tell what a command has come to, on stderr."""
    sys.stdout.flush()
    print(plain(f"{command}: {text}"), file=sys.stderr)


def quiet_ranks() -> None:
    """Let the first process alone speak and write Hydra's files. Call before Hydra starts."""
    if is_first_process():
        return
    logging.disable(logging.INFO)
    sys.argv += ["hydra.output_subdir=null", "hydra/job_logging=none"]
    if "TORCHELASTIC_RUN_ID" in os.environ:  # Fabric's own launcher names the folder
        sys.argv += ["hydra.run.dir=."]
