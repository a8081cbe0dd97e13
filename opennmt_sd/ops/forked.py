"""Processes that are forked: DataLoader workers, web servers, ``nlp.pipe(n_process=2)``.

The threads of torch (OpenMP's) belong to the process that started them. A forked child inherits
the knowledge that they exist, and not the threads: it waits for them for ever, in torch's own LSTM
and products as in ours. With one thread it waits for none.
"""

from __future__ import annotations

import functools
import os

import torch


@functools.cache
def calm_children() -> None:
    """Let children that are forked from now on begin with one thread of torch.

    Importing :mod:`opennmt_sd.ops` calls this. A child whose parent has computed nothing yet may
    call ``torch.set_num_threads`` for more.
    """
    if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
        os.register_at_fork(after_in_child=functools.partial(torch.set_num_threads, 1))
