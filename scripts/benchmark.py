"""Measure speed and memory: `python scripts/benchmark.py --help`."""

from opennmt_sd.cli.benchmark import main

if __name__ == "__main__":
    main()
