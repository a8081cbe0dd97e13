"""The draws: known answers, the same bits everywhere, the rates they promise."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from opennmt_sd import DropoutPattern, KeepMask, KeepSets
from opennmt_sd.compat import KNOWS_OPS
from opennmt_sd.dropout import philox as draws
from opennmt_sd.ops.cpu import native
from opennmt_sd.ops.cpu import philox as native_draws

SEEDS = [0, 1, 0xFFFFFFFF, 1 << 32, 0x299F31D0A4093822, 2**63 - 2]
AWKWARD = [0, 1, 3, 4, 5, 63, 64, 65, 255, 256, 257, 1021, 35 * 650]


def seed(value: int = 7) -> Tensor:
    return torch.tensor([value])


# ------------------------------------------------------------ Philox


def philox(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """Philox4x32-10 of one block, written from the paper with Python's own integers."""
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        first, second = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = ((second >> 32) ^ b ^ k0, second % 2**32,
                      (first >> 32) ^ d ^ k1, first % 2**32)  # fmt: skip
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return a, b, c, d


# Random123, kat_vectors: philox 4x32 10. Counter, key, answer.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]  # fmt: skip


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_the_reference_knows_the_answers(counter, key, answer) -> None:
    assert philox(counter, key) == answer


def test_a_known_answer() -> None:
    """Seed 0, block 0."""
    assert draws.random_bits(0, 4).tolist() == list(KNOWN[0][2])


@pytest.mark.parametrize("key", SEEDS)
@pytest.mark.parametrize("n", [4, 9, 1201])
def test_blocks_are_counted_and_the_seed_is_the_key(key: int, n: int) -> None:
    """Element w * blocks + i is word w of block i."""
    blocks = -(-n // 4)
    words = [philox((i, 0, 0, 0), (key % 2**32, key >> 32)) for i in range(blocks)]
    assert draws.random_bits(key, n).tolist() == [word[w] for w in range(4) for word in words][:n]


# ------------------------------------------------------------ with and without the native module


@pytest.fixture(params=["native", "torch"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either form of the ops."""
    if request.param == "torch":
        monkeypatch.setattr(native_draws, "native", lambda: None)
    elif native() is None:
        pytest.skip("built without a native module: no C++ compiler, or no x86-64")
    return request.param


@pytest.mark.parametrize("p", [1e-12, 0.3, 1 - 2**-33])
@pytest.mark.parametrize("n", AWKWARD)
def test_masks_are_philoxs(form: str, n: int, p: float) -> None:
    for key in SEEDS:
        mask = draws.draw_mask(seed(key), [n], p)
        assert mask.dtype == torch.bool
        assert torch.equal(mask, draws.random_bits(key, n) >= round(p * 2**32)), key


@pytest.mark.parametrize("p", [0.3, 0.95])
@pytest.mark.parametrize(
    ("S", "D"), [(0, 5), (5, 0), (1, 1), (1, 650), (35, 1), (3, 63), (35, 650)]
)
def test_sets_are_the_masks(form: str, S: int, D: int, p: float) -> None:
    """Kept units first, then the dropped ones, both ascending."""
    mask = draws.draw_mask(seed(), [S, D], p)
    idx, count = draws.draw_sets(seed(), S, D, p)
    assert idx.dtype == count.dtype == torch.int32
    assert idx.shape == (S, D)
    assert count.tolist() == mask.sum(1).tolist()
    for row, keeps in zip(idx.tolist(), mask.tolist()):
        assert row == sorted(range(D), key=lambda unit: (not keeps[unit], unit))


def test_one_seed_draws_the_same_with_either_form(monkeypatch: pytest.MonkeyPatch) -> None:
    if native() is None:
        pytest.skip("built without a native module: no C++ compiler, or no x86-64")

    def drawn() -> list[Tensor]:
        torch.manual_seed(11)
        kinds = product(("structured", "random"), ("random", "fixed"))
        keeps = [DropoutPattern(0.4, *kind).draw(7, 3, 65) for kind in kinds]
        return [part for keep in keeps for part in parts(keep)]

    ours = drawn()
    monkeypatch.setattr(native_draws, "native", lambda: None)
    for a, b in zip(ours, drawn(), strict=True):
        assert torch.equal(a, b)


def parts(keep: KeepSets | KeepMask) -> list[Tensor]:
    return [keep.idx, keep.count] if isinstance(keep, KeepSets) else [keep.dense]


@pytest.mark.skipif(not KNOWS_OPS, reason="custom ops need torch 2.4")
def test_torch_knows_the_ops() -> None:
    checks = "test_schema", "test_faketensor"  # they have no gradient
    torch.library.opcheck(
        torch.ops.opennmt_sd.draw_sets.default, (seed(), 3, 65, 0.5), test_utils=checks
    )
    torch.library.opcheck(
        torch.ops.opennmt_sd.draw_mask.default, (seed(), [3, 2, 65], 0.5), test_utils=checks
    )


# ------------------------------------------------------------ rates


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.65, 0.99])
def test_the_rate_over_many_draws(p: float) -> None:
    """Over all bits, and for each unit: five standard deviations, with seeds that are fixed."""
    generator = torch.Generator().manual_seed(1)
    draws, steps, units = 40, 50, 64
    kept = torch.stack(
        [DropoutPattern(p).draw(steps, 1, units, generator).mask()[:, 0] for _ in range(draws)]
    ).double()  # [draws, steps, units]
    for axes in ((0, 1, 2), (0, 1), (0, 2), (1, 2)):  # all, by unit, by step, by draw
        n = math.prod(kept.shape[axis] for axis in axes)
        assert (kept.mean(axes) - (1 - p)).abs().max() < 5 * math.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["draws", "steps", "units"])
def test_neighbours_are_independent(axis: int) -> None:
    """Of draws by seeds that follow each other, of steps, of units."""
    masks = torch.stack([draws.mask_of(seed(s), (60, 64), 0.5) for s in range(40)])
    signs = masks.double() * 2 - 1
    n = signs.shape[axis] - 1
    both = signs.narrow(axis, 1, n) * signs.narrow(axis, 0, n)
    assert both.mean().abs() < 5 / math.sqrt(both.numel())


@pytest.mark.parametrize("p", [5e-324, 2**-34])
def test_a_rate_that_hardly_drops(form: str, p: float) -> None:
    keep = DropoutPattern(p).draw(4, 2, 1000)
    assert keep.count.tolist() == [1000] * 4


@pytest.mark.parametrize("p", [math.nextafter(1, 0), 1 - 2**-34])
def test_a_rate_that_drops_all(form: str, p: float) -> None:
    """And its scale is finite: 0 times it is 0."""
    keep = DropoutPattern(p).draw(4, 2, 1000)
    assert keep.count.tolist() == [0] * 4
    assert torch.equal(keep.apply(torch.ones(4, 2, 1000)), torch.zeros(4, 2, 1000))


# ------------------------------------------------------------ seeds


def test_a_generator_alone_decides() -> None:
    pattern = DropoutPattern(0.5)
    first, again, other = (torch.Generator().manual_seed(n) for n in (3, 3, 4))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    a, b, c = (pattern.draw(5, 2, 64, g).idx for g in (first, again, other))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), state), "the default generator has no part in it"
    assert not torch.equal(a, pattern.draw(5, 2, 64, first).idx), "the generator moves on"


def test_manual_seed_decides_without_one() -> None:
    pattern = DropoutPattern(0.5)
    torch.manual_seed(3)
    one, two = pattern.draw(5, 2, 64).idx, pattern.draw(5, 2, 64).idx
    assert not torch.equal(one, two)
    torch.manual_seed(3)
    assert torch.equal(pattern.draw(5, 2, 64).idx, one)
    assert torch.equal(pattern.draw(5, 2, 64).idx, two)


@pytest.mark.parametrize("space", ["structured", "random"])
def test_a_draw_takes_one_number_from_the_generator(space: str) -> None:
    """So what follows it does not depend on how much was drawn."""
    after = []
    for shape in ((1, 1, 1), (35, 20, 650)):
        generator = torch.Generator().manual_seed(3)
        DropoutPattern(0.5, space).draw(*shape, generator)
        after.append(torch.rand(3, generator=generator))
    assert torch.equal(*after)


# ------------------------------------------------------------ the device


@pytest.mark.parametrize("form", ["native", "torch"])
@pytest.mark.parametrize("given", [True, False], ids=["own generator", "torch's"])
def test_a_draw_is_made_on_the_cpu(form: str, given: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever torch's default device is: a tensor that is made on "meta" holds no data."""
    if form == "torch":
        monkeypatch.setattr(native_draws, "native", lambda: None)

    def everything() -> list[Tensor]:
        torch.manual_seed(5)
        generator = torch.Generator("cpu").manual_seed(5) if given else None
        keeps = []
        for p, space, time in product([0.0, 0.5], ["structured", "random"], ["random", "fixed"]):
            pattern = DropoutPattern(p, space, time)
            keeps += [pattern.draw(4, 3, 65, generator), pattern.draw_mask(4, 3, 65, generator)]
        x, rows, sizes = ones[0], ones[1], ones[2].long()
        masked = [keep.apply(x) for keep in keeps] + [keep.apply(rows, sizes) for keep in keeps]
        more = [keep[1].cat(keep[2]).mask() for keep in keeps] + [
            k.shifted(4).mask() for k in keeps
        ]
        return [keep.mask() for keep in keeps] + masked + more

    ones = torch.ones(4, 3, 65), torch.ones(8, 65), torch.tensor([3, 3, 1, 1])
    want = everything()
    with torch.device("meta"):
        got = everything()
    assert all(x.device.type == "cpu" for x in got)
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)


class Seen(TorchDispatchMode):
    """Notes which of our ops go by."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "opennmt_sd" in str(func):
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_draw_is_an_op_where_somebody_watches_and_no_dispatch_elsewhere(monkeypatch) -> None:
    def drawn() -> list[Tensor]:
        torch.manual_seed(11)
        pattern = DropoutPattern(0.4)
        return [*parts(pattern.draw(7, 3, 65)), pattern.draw_mask(7, 3, 65).dense]

    with Seen() as seen:
        watched = drawn()
    assert seen.names == ["opennmt_sd.draw_sets.default", "opennmt_sd.draw_mask.default"]
    calls = []
    for name, draw in {**draws._implemented}.items():
        monkeypatch.setitem(
            draws._implemented, name, lambda *given, d=draw: calls.append(given) or d(*given)
        )
    for a, b in zip(watched, drawn(), strict=True):
        assert torch.equal(a, b)
    assert len(calls) == 2
