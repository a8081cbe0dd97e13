"""Train, evaluate or sample a language model: `python scripts/train_lm.py --help`."""

from opennmt_sd.cli.train_lm import main

if __name__ == "__main__":
    main()
