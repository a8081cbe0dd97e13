"""The modules on a GPU: what they are on the CPU, in a step that waits for nothing and that a graph
can hold."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from opennmt_sd import (
    DropoutPattern,
    MaskedLinear,
    StructuredDropout,
    StructuredGRU,
    StructuredLSTM,
    ops,
)

pytestmark = pytest.mark.usefixtures("settled")

T, B, D, H = 6, 4, 24, 17
SIZES = torch.tensor([4, 4, 3, 1, 1, 1])
CASES = {
    "Case III": ("structured", "random"),
    "Case IV": ("structured", "fixed"),
    "Case I": ("random", "random"),
    "nothing": ("structured", "random"),
}


def recurrent(kind: Any, *, rh: bool = True, **more: Any) -> Callable[[DropoutPattern], nn.Module]:
    """Make two layers, dropped before, between and, with ``rh``, in the recurrence."""
    return lambda p: kind(
        D, H, 2, dropout=p, input_dropout=p, recurrent_dropout=p if rh else None, **more
    )


MODULES: dict[str, Callable[[DropoutPattern], nn.Module]] = {
    "lstm NR+RH": recurrent(StructuredLSTM),
    "lstm NR": recurrent(StructuredLSTM, rh=False),
    "lstm NR+RH both ways": recurrent(StructuredLSTM, bidirectional=True),
    "gru NR+RH": recurrent(StructuredGRU),
    "gru NR": recurrent(StructuredGRU, rh=False),
    "gru NR+RH both ways": recurrent(StructuredGRU, bidirectional=True),
    "linear": lambda p: MaskedLinear(D, H, dropout=p),
    "dropout": StructuredDropout,
}


def pattern(case: str) -> DropoutPattern:
    return DropoutPattern(0.0 if case == "nothing" else 0.5, *CASES[case])


def build(name: str, case: str) -> nn.Module:
    torch.manual_seed(1)
    return MODULES[name](pattern(case))


def inputs(packed: bool) -> Tensor:
    shape = (int(SIZES.sum()), D) if packed else (T, B, D)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def first(out: Any) -> Tensor:
    """Return the output's rows, without states."""
    out = out[0] if isinstance(out, tuple) and not isinstance(out, PackedSequence) else out
    return out.data if isinstance(out, PackedSequence) else out


def results(module: nn.Module, x: Tensor, packed: bool) -> dict[str, Tensor]:
    """Give the output, and the gradients of the input and of every parameter."""
    module.zero_grad()
    x = x.clone().requires_grad_()
    torch.manual_seed(3)
    y = first(module(PackedSequence(x, SIZES) if packed else x))
    (y * torch.linspace(-1, 1, y.shape[-1], dtype=y.dtype, device=y.device)).sum().backward()
    grads = {f"d{n}": p.grad for n, p in module.named_parameters()}
    return {"y": y.detach(), "dx": x.grad, **grads}


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_what_it_is_on_the_cpu(
    device, engine: str, close, name: str, case: str, packed: bool
) -> None:
    """One seed drops the same units; and twice the same bits."""
    module, x = build(name, case), inputs(packed)
    with ops.use("naive"):
        want = results(copy.deepcopy(module).double(), x.double(), packed)
    module = module.to(device)
    with ops.use(engine):
        got, again = (results(module, x.to(device), packed) for _ in range(2))
    close(got, want, torch.float32)
    assert [n for n in got if not torch.equal(got[n], again[n])] == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["lstm NR+RH", "lstm NR", "gru NR+RH", "linear"])
def test_under_autocast(card: torch.device, close, name: str, dtype: torch.dtype) -> None:
    module, x = build(name, "Case III"), inputs(False)
    with ops.use("naive"):
        want = results(copy.deepcopy(module).double(), x.double(), False)
    with torch.autocast("cuda", dtype):
        got = results(module.to(card), x.to(card), False)
    # cuDNN's layers are float16 under autocast, whatever it is told.
    assert got["y"].dtype in ({dtype, torch.float16} if name == "lstm NR" else {dtype})
    assert {n for n, g in got.items() if g.dtype != torch.float32} <= {"y"}
    close({"y": got["y"]}, {"y": want["y"]}, torch.bfloat16)


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("case", ["Case III", "Case IV", "Case I"])
@pytest.mark.parametrize("name", [name for name in MODULES if name != "dropout"])
def test_a_step_waits_for_nothing(card, without_waiting, name: str, case: str, layout) -> None:
    """Forward, backward, clip and update, in full swing."""
    module, x = build(name, case).to(card), inputs(layout == "packed").to(card)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)

    def step() -> None:
        y = first(module(PackedSequence(x, SIZES) if layout == "packed" else x))
        y.square().mean().backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()
    without_waiting(step)


@pytest.mark.parametrize("case", ["Case III", "Case IV", "Case I"])
def test_a_loss_waits_for_nothing(card: torch.device, without_waiting, case: str) -> None:
    x, weight, bias = (torch.randn(s, device=card, requires_grad=True)
                       for s in ((T, B, D), (50, D), (50,)))  # fmt: skip
    targets = torch.randint(50, (T, B), device=card)

    def step() -> None:
        keep = pattern(case).draw(T, B, D)
        ops.projected_nll(x, keep, weight, bias, targets, label_smoothing=0.1)[0].backward()

    step()
    without_waiting(step)


def test_attention_waits_for_nothing(card: torch.device, without_waiting) -> None:
    memory, query = (torch.randn(s, device=card, requires_grad=True) for s in ((B, T, D), (B, D)))
    lengths = torch.tensor([6, 4, 3, 1], device=card)

    def step() -> None:
        handle = ops.prepare_memory(memory, lengths)
        context, _ = ops.attend_step(handle, query)
        ops.attend_step(handle, context)[0].sum().backward()

    step()
    without_waiting(step)


# ---------------------------------------------------------------- cuDNN's flat weights


def moved(module: nn.Module, card: torch.device) -> nn.Module:
    return module.to(card)


def copied(module: nn.Module, card: torch.device) -> nn.Module:
    return copy.deepcopy(module.to(card))


def loaded(module: nn.Module, card: torch.device) -> nn.Module:
    module = module.to(card)
    module.load_state_dict({n: p.cpu().clone() for n, p in module.state_dict().items()})
    return module


def there_and_back(module: nn.Module, card: torch.device) -> nn.Module:
    return module.to(card).cpu().to(card)


def halved(module: nn.Module, card: torch.device) -> nn.Module:
    return module.to(card).half().float()


def trained(module: nn.Module, card: torch.device) -> nn.Module:
    module = module.to(card)
    first(module(inputs(False).to(card))).sum().backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    return module


@pytest.mark.parametrize("change", [moved, copied, loaded, there_and_back, halved, trained])
@pytest.mark.parametrize("case", ["Case III", "Case I", "nothing"])
@pytest.mark.parametrize("name", [name for name in MODULES if name.endswith(("NR", "ways"))])
def test_weights_are_flat(card: torch.device, name: str, case: str, change) -> None:
    """cuDNN warns of weights that are not, and copies them at each call."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="RNN module weights")
        module = change(build(name, case), card)
        x = inputs(False).to(card)
        first(module(x)).sum().backward()
        module.eval()
        with torch.no_grad():
            module(x)


# ---------------------------------------------------------------- graphs


def captured(step: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """Return a step as a graph, after some that warm up on a stream of their own."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    return graph, out


@pytest.mark.parametrize("op", ["lstm", "gru", "linear", "nll"])
def test_a_graph_of_an_op(card: torch.device, close, op: str) -> None:
    """Its sets lie on the device: who writes others there gets other units dropped."""
    gates = {"lstm": 4, "gru": 3}.get(op, 1)
    x, w_ih, w_hh, bias, h = (
        torch.randn(s, device=card).mul(0.3).requires_grad_()
        for s in ((T, B, D), (gates * D, D), (gates * D, D), (gates * D,), (B, D))
    )
    leaves = [x, w_ih, bias] + ([w_hh] if gates > 1 else [])
    targets = torch.randint(D, (T, B), device=card)
    keep = DropoutPattern(0.5, "random").draw(T, B, D).to(card)

    def step() -> dict[str, Tensor]:
        if op == "linear":
            y = ops.masked_linear(x, keep, w_ih, bias)
        elif op == "nll":
            y, _ = ops.projected_nll(x, keep, w_ih, bias, targets)
        elif op == "lstm":
            y, *_ = ops.lstm_layer(x, keep, w_ih, bias, w_hh, h, h, keep)
        else:
            y, *_ = ops.gru_layer(x, keep, w_ih, bias, w_hh, bias[:D], h, keep)
        grads = torch.autograd.grad(y.square().sum(), leaves)
        return {"y": y.detach(), **{f"d{n}": g for n, g in enumerate(grads)}}

    graph, out = captured(step)
    for seed in (1, 2):
        torch.manual_seed(seed)
        keep.dense.copy_(DropoutPattern(0.5, "random").draw(T, B, D).mask())
        x.data.normal_()
        graph.replay()
        close({n: t.clone() for n, t in out.items()}, step(), torch.float32)


@pytest.mark.parametrize("name", ["lstm NR", "gru NR", "lstm NR+RH both ways", "linear"])
def test_a_graph_of_a_training_step_that_drops_nothing(card: torch.device, name: str) -> None:
    module, x = build(name, "nothing").to(card), inputs(False).to(card)
    twin = copy.deepcopy(module)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (module, twin)]

    def step(which: int) -> None:
        optimizers[which].zero_grad(set_to_none=True)
        first((module, twin)[which](x)).square().mean().backward()
        optimizers[which].step()

    graph, _ = captured(lambda: step(0))
    for _ in range(2):
        graph.replay()
    for _ in range(3 + 2):  # what warms up, trains
        step(1)
    for mine, its in zip(module.parameters(), twin.parameters()):
        torch.testing.assert_close(mine, its)
