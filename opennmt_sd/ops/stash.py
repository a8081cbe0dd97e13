"""What the steps of one backward pass leave behind for a gradient that is made once."""

from __future__ import annotations

from typing import Generic, TypeVar

import torch

Given = TypeVar("Given")


class Stash(Generic[Given]):
    """Steps by their number, of one backward pass at a time.

    A pass that never asks for the gradient leaves its steps here; the next pass does not count
    them.
    """

    def __init__(self) -> None:
        self._given: dict[int, Given] = {}
        self._task = -1  # autograd's number of the pass

    def put(self, step: int, given: Given) -> None:
        """From a step's backward."""
        task = torch._C._current_graph_task_id()
        if task != self._task:
            self._given.clear()
            self._task = task
        self._given[step] = given

    def take(self) -> list[tuple[int, Given]]:
        """All that ran backward in this pass, by step; nothing stays."""
        given = sorted(self._given.items(), key=lambda item: item[0])
        self._given.clear()
        return given
