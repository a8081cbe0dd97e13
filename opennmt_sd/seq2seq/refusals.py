"""What is said where options cannot work: every fault at once."""

from __future__ import annotations


class UnsupportedOptionsError(ValueError, RuntimeError):
    """Options that cannot work together; the text lists every fault with its remedy.

    A RuntimeError too, since those are what ``onmt_server`` answers its client with.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__(explain(faults))


def explain(faults: list[str]) -> str:
    """Join all faults to one text."""
    if len(faults) == 1:
        return faults[0]
    return "\n  ".join([f"{len(faults)} faults in the options:", *faults])
