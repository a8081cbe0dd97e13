"""``opennmt_sd_train_tagger``: train, evaluate or use a tagger, configured with Hydra.

Light, so that ``--help``, ``--cfg job`` and the shell's completion answer at once; the work is in
``recipes/train_tagger.py``.
"""

from __future__ import annotations

from typing import Any

from opennmt_sd.cli.command import reported


def main() -> None:
    """Run the console command. Exit codes: ``opennmt_sd.cli.errors``."""
    with reported("train_tagger", "tagger"):
        import hydra

        from opennmt_sd.cli.ranks import quiet_ranks
        from opennmt_sd.config import tagger
        from opennmt_sd.config.help import register

        quiet_ranks()
        tagger.register()
        register()
        hydra.main("pkg://opennmt_sd.conf.tagger", "train_tagger", version_base="1.3")(run)()


def run(cfg: Any) -> float | None:
    """Do what a configuration says; a sweeper reads the score."""
    from opennmt_sd.cli.errors import guarded
    from opennmt_sd.data.textfile import TextError
    from opennmt_sd.recipes import train_tagger

    return guarded("train_tagger", lambda: train_tagger.run(cfg), unusable=(TextError,))


if __name__ == "__main__":
    main()
