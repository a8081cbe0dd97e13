"""Several processes of one training."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Whether this process is the first of a training, or the only one. Before Fabric knows."""
    return {os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK", "NODE_RANK")} == {"0"}
