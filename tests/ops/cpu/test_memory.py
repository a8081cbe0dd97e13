"""Scratch memory is kept from call to call: reused, bounded, and safe wherever kernels run.

Each test runs in a process of its own, whose pages nothing else touches.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

from opennmt_sd.ops.cpu import require_native

pytestmark = [
    pytest.mark.usefixtures("native"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]

START = """
import ctypes, os, random, resource, threading, torch
from opennmt_sd.ops.cpu import kernels
# Pages of 4 KB, touched one by one: numbers do not depend on the machine's settings.
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE
MB = 1 << 20

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / MB

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

# WG of one output: its scratch is the gathered input, of `mb` MB, and its result is small.
x, dy = torch.ones(200_000, 100), torch.ones(200_000, 1)
def call(mb):
    R = int(mb * MB / 400)
    return kernels.linear_wg(x[:R], dy[:R], kernels.Sets(), [R])
"""


@pytest.fixture
def plain() -> None:
    """Pages can be counted."""
    if "sanitizers" in require_native().compiler:
        pytest.skip("AddressSanitizer keeps what is freed, and marks what is used")


@pytest.fixture
def run(run_warm: Callable[..., CompletedProcess[str]]) -> Callable[..., None]:
    """Run code after START, with as many threads as ``threads``."""

    def run(code: str, threads: int = 1) -> None:
        done = run_warm("-c", START + code, OMP_NUM_THREADS=str(threads))
        assert done.returncode == 0, done.stderr

    return run


def test_it_is_reused(plain: None, run) -> None:
    """40 MB are 10,000 pages: the first call touches them, the next ones find them."""
    run("""
before = faults(); call(40); first = faults() - before
before = faults(); call(40); call(35); call(38); later = faults() - before
assert first > 10_000 and later < 1_000, (first, later)
""")


def test_it_is_bounded(plain: None, run) -> None:
    """64 MB at most, of 297 that were needed one after the other (the system's allocator keeps some
    of its own); what is larger is never kept."""
    run("""
call(1)
least = resident()
call(70)
assert resident() < least + 10, (70, resident() - least)
for mb in (5, 50, 10, 20, 30, 8, 40, 3, 60, 12, 25, 6, 33):
    call(mb)
    assert resident() < least + 100, (mb, resident() - least)
""")


def test_it_does_not_grow_over_many_calls(plain: None, run) -> None:
    """Layers of many sizes, forward and backward."""
    run("""
from opennmt_sd import DropoutPattern, ops
draw = random.Random(1)
def layer():
    T, B, D, H = (draw.randint(1, most) for most in (20, 20, 400, 200))
    x = torch.randn(T, B, D, requires_grad=True)
    w, u = torch.randn(4 * H, D, requires_grad=True), torch.randn(4 * H, H, requires_grad=True)
    state = torch.zeros(B, H)
    keep, h_keep = (DropoutPattern(0.5).draw(T, B, n) for n in (D, H))
    ops.lstm_layer(x, keep, w, None, u, state, state, h_keep)[0].sum().backward()
ops.use("cpu")
for _ in range(60): layer()
middle = resident()
for _ in range(180): layer()
assert resident() < middle + 20, (middle, resident())
""")


def test_threads_share_it(run) -> None:
    """Of several sizes at once, each with its own result."""
    run("""
sizes = [3, 7, 12, 20]
want = {mb: call(mb) for mb in sizes}
wrong = []
def work(seed):
    draw = random.Random(seed)
    for _ in range(25):
        mb = draw.choice(sizes)
        if not torch.equal(call(mb), want[mb]): wrong.append(mb)
workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
for w in workers: w.start()
for w in workers: w.join()
assert not wrong, wrong
""")


def test_a_child_forked_amid_calls(run) -> None:
    """Whatever another thread holds at that moment: the child computes, and its parent goes on."""
    run("""
import time
want, stop = call(8), threading.Event()
def work():
    while not stop.is_set(): call(2); call(8)
workers = [threading.Thread(target=work) for _ in range(3)]
for w in workers: w.start()
try:
    for _ in range(20):
        pid = os.fork()
        if not pid:
            os._exit(0 if all(torch.equal(call(8), want) for _ in range(2)) else 1)
        end = time.monotonic() + 60
        while (done := os.waitpid(pid, os.WNOHANG)) == (0, 0):
            if time.monotonic() > end:
                os.kill(pid, 9)
                raise SystemExit("the child hangs")
            time.sleep(0.002)
        assert done[1] == 0, done
finally:
    stop.set()
    for w in workers: w.join()
assert torch.equal(call(8), want)
""", threads=2)  # fmt: skip
