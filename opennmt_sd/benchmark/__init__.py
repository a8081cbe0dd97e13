"""Speed, told honestly: a correctness gate first, then ratios taken in one process.

One file a suite (``ops``, ``lstm``, ...); each gives :class:`~opennmt_sd.benchmark.row.Row` after
row. ``scripts/benchmark.py`` runs them.
"""
