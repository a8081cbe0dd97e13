"""How a step is cut into programs: as small as fit on the card at once."""

from __future__ import annotations

import pytest
import torch

from opennmt_sd.ops.triton import tiling

CARD = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "_multiprocessors", lambda _: 132)  # an H100's
    monkeypatch.setattr(tiling, "_has_tf32", lambda _: True)


@pytest.mark.parametrize(
    ("B", "H", "BT", "U"),
    [(20, 650, 16, 16), (20, 1500, 16, 32), (64, 500, 16, 16), (10, 200, 16, 8), (1, 1, 16, 8)],
)
def test_the_smallest_that_fit(B: int, H: int, BT: int, U: int) -> None:
    tiles = tiling.tiling(B, H, torch.float32, CARD)
    assert (tiles.BT, tiles.U, tiles.at_once) == (BT, U, True)
    assert tiles.batches * BT >= B > (tiles.batches - 1) * BT
    assert tiles.parts * U >= H > (tiles.parts - 1) * U
    assert tiles.parts * tiles.batches <= 132


def test_too_many_do_a_step_a_launch() -> None:
    tiles = tiling.tiling(4096, 4096, torch.float16, CARD)
    assert not tiles.at_once
    assert tiles.batches * tiles.BT == tiles.parts * tiles.U == 4096


def test_float32_is_taken_apart_where_there_is_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tiling.tiling(20, 650, torch.float32, CARD).bp.float32 == "tf32x3"
    monkeypatch.setattr(tiling, "_has_tf32", lambda _: False)
    assert tiling.tiling(20, 650, torch.float32, CARD).bp.float32 == "ieee"
