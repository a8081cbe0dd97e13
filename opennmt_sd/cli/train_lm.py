"""``opennmt_sd_train_lm``: train, evaluate or sample a language model, configured with Hydra.

Light, so that ``--help``, ``--cfg job`` and the shell's completion answer at once; the work is in
``recipes/train_lm.py``.
"""

from __future__ import annotations

from typing import Any

from opennmt_sd.cli.command import reported


def main() -> None:
    """Run the console command. Exit codes: ``opennmt_sd.cli.errors``."""
    with reported("train_lm", "lm"):
        import hydra

        from opennmt_sd.cli.ranks import quiet_ranks
        from opennmt_sd.config import lm
        from opennmt_sd.config.help import register

        quiet_ranks()
        lm.register()
        register()
        hydra.main("pkg://opennmt_sd.conf.lm", "train_lm", version_base="1.3")(run)()


def run(cfg: Any) -> float | None:
    """Do what a configuration says; a sweeper reads the score."""
    from opennmt_sd.cli.errors import guarded
    from opennmt_sd.lm.data import CorpusError
    from opennmt_sd.recipes import train_lm

    return guarded("train_lm", lambda: train_lm.run(cfg), unusable=(CorpusError,))


if __name__ == "__main__":
    main()
