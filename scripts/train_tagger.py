"""Train, evaluate or use a tagger: `python scripts/train_tagger.py --help`."""

from opennmt_sd.cli.train_tagger import main

if __name__ == "__main__":
    main()
