"""Trains our language model from a main of this project's own."""

import hydra
from omegaconf import DictConfig

from opennmt_sd.recipes import train_lm


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    print(f"{cfg.project}: {cfg.name}")
    return train_lm.run(cfg)


if __name__ == "__main__":
    main()
