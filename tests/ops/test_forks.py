"""A forked child computes what its parent did, after the parent's threads have run: every op."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

# Sizes that are shared out among threads, by our kernels and by torch's.
CODE = """
import os, signal, sys
import torch
import torch.testing._comparison  # here once, not in every child: that would take a second
from opennmt_sd import DropoutPattern, ops

assert "opennmt_sd.nn" not in sys.modules, "the ops alone must be safe"
torch.set_num_threads(2)
ops.use(sys.argv[1])
T, B, D, V, S = 4, 32, 256, 2000, 24
seeded = torch.Generator().manual_seed(0)
keep = DropoutPattern(0.5).draw(T, B, D, seeded)

def make(*shape):
    return (0.1 * torch.randn(shape, generator=seeded)).requires_grad_()

x, h, weight, vocab, memory = (
    make(*s) for s in ((T, B, D), (B, D), (D, D), (V, D), (B, S, D)))
gates = {n: (make(n * D, D), make(n * D, D)) for n in (3, 4)}
targets = torch.arange(T * B).view(T, B)

def stepwise():
    handle, y = ops.prepare(weight), h
    for t in range(T):
        y = torch.tanh(ops.masked_linear_step(handle, y, keep, t))
    return y

work = {
    "linear": lambda: ops.masked_linear(x, keep, weight),
    "lstm": lambda: ops.lstm_layer(x, keep, gates[4][0], None, gates[4][1], h, h, keep)[0],
    "gru": lambda: ops.gru_layer(x, keep, gates[3][0], None, gates[3][1], None, h, keep)[0],
    "stepwise": stepwise,
    "nll": lambda: ops.projected_nll(x, keep, vocab, None, targets)[0],
    "attention": lambda: torch.cat(ops.attend_step(ops.prepare_memory(memory), h), 1),
}
leaves = x, h, weight, vocab, memory, *gates[3], *gates[4]

def results(name):
    y = work[name]()
    return [y, *torch.autograd.grad(y.square().sum(), leaves, allow_unused=True)]

want = {name: results(name) for name in work}
for name in work:
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # a child that waits for threads which it does not have
        try:
            for one, other in zip(results(name), want[name], strict=True):
                if one is not None:
                    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
            os._exit(0)
        except BaseException as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
    print(name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
NAMES = ("linear", "lstm", "gru", "stepwise", "nll", "attention")


def test_a_child_computes_the_same(run_warm, any_engine: str) -> None:
    done = run_warm("-c", CODE, any_engine, OMP_NUM_THREADS="2")
    assert (done.stdout.split("\n"), done.stderr) == ([*(f"{name} 0" for name in NAMES), ""], "")
