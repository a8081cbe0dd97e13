"""Makes a language model from one of our model configurations."""

import hydra
from omegaconf import DictConfig

from opennmt_sd.recipes.train_lm import model_of


@hydra.main(version_base="1.3", config_path="conf", config_name="count")
def main(cfg: DictConfig) -> None:
    model = model_of(cfg.model, cfg.words)
    print(f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters")


if __name__ == "__main__":
    main()
