"""``opennmt_sd_train_tagger``: train, evaluate or use a tagger, configured with Hydra.

Light, so that ``--help``, ``--cfg job`` and the shell's completion answer at once; the work is in
``tagger.py``.
"""

from __future__ import annotations

from typing import Any

from opennmt_sd.cli.command import reported
from opennmt_sd.cli.ranks import quiet_ranks


def main() -> None:
    """Run the console command. Exit codes: ``opennmt_sd.cli.errors``."""
    with reported("train_tagger", "tagger"):
        import hydra

        from opennmt_sd.cli import schema_tagger

        quiet_ranks()
        schema_tagger.register()
        hydra.main(version_base="1.3", config_path="pkg://opennmt_sd.conf.tagger",
                   config_name="train_tagger")(run)()  # fmt: skip


def run(cfg: Any) -> float | None:
    """Do what a configuration says; a sweeper reads the score."""
    from opennmt_sd.cli.tagger import run

    return run(cfg)


if __name__ == "__main__":
    main()
