"""Ranks that stock seeds alike must not drop alike."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from opennmt_sd.seq2seq.rank_generator import generator_for


def test_one_process_uses_torchs_own() -> None:
    assert generator_for(Namespace(seed=1)) is None


@pytest.fixture
def distributed(tmp_path: Path) -> Iterator[None]:
    store = f"file://{tmp_path}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_ranks_and_seeds_differ_and_repeat(
    distributed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(seed: int, rank: int) -> tuple[float, ...]:
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
        torch.manual_seed(5)  # stock's, alike on every rank
        generator = generator_for(Namespace(seed=seed))
        assert generator is not None
        return tuple(torch.rand(4, generator=generator).tolist())

    pairs = [(seed, rank) for seed in (1, 2, 11) for rank in (0, 1, 2, 11)]
    draws = [draw(*pair) for pair in pairs]
    assert len(set(draws)) == len(pairs)
    assert [draw(*pair) for pair in pairs] == draws
    # No seed of its own: torch's counts, which here is 5.
    assert draw(-1, 1) == draw(5, 1)
