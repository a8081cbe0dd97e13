"""Threads: as many as torch says, from anywhere, and the same bits every time.

Each test runs in a process of its own: what it says of threads must not depend on other tests.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch

pytestmark = pytest.mark.usefixtures("native")

START = """
import os, threading, torch
from opennmt_sd import DropoutPattern, ops

def results(seed=0, B=20, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    def r(*shape):
        x = torch.randn(*shape, generator=g) / shape[-1] ** .5
        return x.to(dtype).requires_grad_()
    x, w, u, h = r(6, B, 300), r(4 * 130, 300), r(4 * 130, 130), r(B, 130)
    a, b = (DropoutPattern(.5).draw(6, B, n, g) for n in (300, 130))
    y = ops.lstm_layer(x, a, w, None, u, h, h, b)
    return [*y, *torch.autograd.grad(sum(t.sum() for t in y), (x, w, u, h))]

def layer(T, B, D, H, dtype=torch.float32, reverse=False):
    g = torch.Generator().manual_seed(B)
    def r(*shape):
        x = torch.randn(*shape, generator=g) / shape[-1] ** .5
        return x.to(dtype).requires_grad_()
    leaves = x, w, b, u, h, c = r(T, B, D), r(4 * H, D), r(4 * H), r(4 * H, H), r(B, H), r(B, H)
    sets = [DropoutPattern(.5).draw(T, B, n, g) for n in (D, H)]
    y = ops.lstm_layer(x, sets[0], w, b, u, h, c, sets[1], reverse=reverse)
    return [*y, *torch.autograd.grad(sum(t.square().sum() for t in y), leaves)]

def gru(T, B, D, H, dtype=torch.float32, reverse=False):
    g = torch.Generator().manual_seed(B)
    def r(*shape):
        x = torch.randn(*shape, generator=g) / shape[-1] ** .5
        return x.to(dtype).requires_grad_()
    leaves = x, w, b, u, n, h = r(T, B, D), r(3 * H, D), r(3 * H), r(3 * H, H), r(H), r(B, H)
    sets = [DropoutPattern(.5).draw(T, B, n, g) for n in (D, H)]
    y = ops.gru_layer(x, sets[0], w, b, u, n, h, sets[1], reverse=reverse)
    return [*y, *torch.autograd.grad(sum(t.square().sum() for t in y), leaves)]

def same(a, b): return all(torch.equal(x, y) for x, y in zip(a, b))
def tasks(): return len(os.listdir("/proc/self/task"))
ops.use(os.environ.get("ENGINE", "cpu"))
"""


def runner(run_python: Callable[..., CompletedProcess[str]]) -> Callable[..., str]:
    """Run code after START, with as many threads as ``threads``: what it prints."""

    def run(code: str, threads: int = 2, **more: str) -> str:
        done = run_python("-c", START + code, OMP_NUM_THREADS=str(threads), **more)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture
def run(run_warm: Callable[..., CompletedProcess[str]]) -> Callable[..., str]:
    return runner(run_warm)


@pytest.fixture
def run_alone(run_python: Callable[..., CompletedProcess[str]]) -> Callable[..., str]:
    """In a Python that has loaded nothing else: no library that brings an OpenMP of its own."""
    return runner(run_python)


def test_the_same_bits_again_and_with_any_number_of_threads(run) -> None:
    code = """
sizes = [(3, B, D, H) for B in (1, 3, 20, 64, 128) for D, H in ((1, 1), (63, 65))]
sizes += [(2, 3, 650, 130), (2, 20, 1000, 17)]  # a thread's units in one part and in several
def everything():
    return results() + [t for i, size in enumerate(sizes) for cell in (layer, gru)
                        for t in cell(*size, reverse=i % 2 > 0)]
first = everything()
for n in (1, 2, 3, 5, 2):
    torch.set_num_threads(n)
    assert same(everything(), first), n
"""
    run(code)


RUNTIMES = """
import pathlib
def runtimes():
    names = {line.split()[-1] for line in open("/proc/self/maps")}
    return {n for n in names if pathlib.Path(n).name.startswith(("libgomp", "libiomp", "libomp"))}
"""


@pytest.mark.slow
def test_it_starts_as_many_threads_as_torch_says(run_alone) -> None:
    code = """
torch.set_num_threads(1)
before = tasks(); results(); assert tasks() == before
torch.set_num_threads(3)
a = torch.randn(500, 500); (a @ a).exp()  # torch's own threads are there now
before = tasks(); results()
print(tasks() - before, len(runtimes()))
"""
    started, runtimes = map(int, run_alone(RUNTIMES + code, threads=1).split())
    assert started == (0 if runtimes == 1 else 2)


@pytest.mark.slow
def test_it_shares_the_openmp_runtime_of_torch(run_alone) -> None:
    lib = Path(torch.__file__).parent / "lib"
    if not (lib / "libgomp.so.1").exists():
        pytest.skip("this torch brings its OpenMP runtime under a name of its own")
    assert run_alone(RUNTIMES + "results(); print(*runtimes())") == str(lib / "libgomp.so.1")


def test_python_threads_do_not_disturb_each_other(run) -> None:
    code = """
want = [results(seed) for seed in range(4)]
wrong = []
def work(seed):
    for _ in range(5):
        if not same(results(seed), want[seed]): wrong.append(seed)
workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
for w in workers: w.start()
for w in workers: w.join()
assert not wrong, wrong
"""
    run(code)


def test_the_gil_is_free_meanwhile(run) -> None:
    """Another Python thread counts while one long kernel runs."""
    code = """
import sys, time
sys.setswitchinterval(1e-4)
x, w = torch.randn(50, 40, 1000), torch.randn(8000, 1000)
keep = DropoutPattern(.1).draw(50, 40, 1000)
from opennmt_sd.ops.cpu import kernels
sets = kernels.Sets(keep.idx, keep.count, keep.scale)
counted, stop = [0], threading.Event()
def count():
    while not stop.is_set():
        counted[0] += 1; time.sleep(1e-4)
counter = threading.Thread(target=count); counter.start()
before = counted[0]
kernels.linear_fp(x.flatten(0, 1), w, None, sets, [40] * 50)
after = counted[0]
stop.set(); counter.join()
assert after - before > 10, (before, after)
"""
    run(code)


@pytest.mark.slow
def test_a_forked_child_runs_one_thread_and_the_same_bits(run_alone) -> None:
    code = """
want = results()
pid = os.fork()
if not pid:
    before = tasks()
    torch.set_num_threads(1)  # torch's own products would hang with more, as in any child
    # ... while the kernels are safe with any number
    from opennmt_sd.ops.cpu.kernels import call
    call.torch = type("T", (), {"get_num_threads": lambda: 4, **{n: getattr(torch, n)
        for n in ("float32", "int32", "bool", "contiguous_format")}})
    ok = same(results(), want) and tasks() == before
    os._exit(0 if ok else 1)
assert os.waitpid(pid, 0)[1] == 0
"""
    run_alone(code)


def test_a_data_loader_worker_may_use_it(run) -> None:
    code = """
from torch.utils.data import DataLoader, Dataset
want = results()
class Rows(Dataset):
    def __len__(self): return 2
    def __getitem__(self, i): return [x.detach() for x in results()]
for row in DataLoader(Rows(), batch_size=None, num_workers=1, multiprocessing_context="fork"):
    assert same(row, want)
"""
    run(code)


@pytest.mark.parametrize("level", ["avx512", "avx2", "baseline"])
def test_every_instruction_set(run, level: str) -> None:
    """One source: the narrower sets must agree with naive as well (skipped where not there)."""
    code = f"""
from opennmt_sd.ops.cpu import native
if native().simd_level() != "{level}":
    print("no"); raise SystemExit
for B in (1, 20, 51):
    with ops.use("naive"): want = results(B=B, dtype=torch.float64)
    for dtype, tol in ((torch.float64, 1e-9), (torch.float32, 2e-5)):
        for a, b in zip(results(B=B, dtype=dtype), want):
            torch.testing.assert_close(a.double(), b, rtol=tol, atol=tol)
    size = 3, B, 63, 65
    for cell in (layer, gru):
        with ops.use("naive"): want = cell(*size, dtype=torch.float64)
        for dtype, tol in ((torch.float64, 1e-9), (torch.float32, 1e-4)):  # gradients of up to 60
            for a, b in zip(cell(*size, dtype=dtype), want):
                torch.testing.assert_close(a.double(), b, rtol=tol, atol=tol)
print("yes")
"""
    if run(code, OPENNMT_SD_SIMD=level) == "no":
        pytest.skip(f"this machine has no {level}")


def test_an_unknown_instruction_set_is_told(run) -> None:
    code = """
import warnings
from opennmt_sd.ops.cpu import native
assert native() is None
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    results()
print(caught[0].message)
"""
    text = run(code, OPENNMT_SD_SIMD="sse9", ENGINE="auto")
    assert "OPENNMT_SD_SIMD=sse9 is unknown: use avx512, avx2 or baseline, or unset it" in text
