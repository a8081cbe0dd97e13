"""``opennmt_sd_train_tagger``: train, evaluate or use a tagger, configured with Hydra.

Light, so that ``--help``, ``--cfg job`` and the shell's completion answer at once; the work is in
``tagger.py``.
"""

from __future__ import annotations

from typing import Any

import hydra

from opennmt_sd.cli import schema_tagger
from opennmt_sd.cli.ranks import quiet_ranks


def main() -> None:
    """The console command. Exit codes: ``opennmt_sd.cli.errors``."""
    quiet_ranks()
    schema_tagger.register()
    _main()


@hydra.main(
    version_base="1.3", config_path="pkg://opennmt_sd.conf.tagger", config_name="train_tagger"
)
def _main(cfg: Any) -> float | None:
    from opennmt_sd.cli.tagger import run

    return run(cfg)


if __name__ == "__main__":
    main()
