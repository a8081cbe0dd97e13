"""torch's tools and our modules: tracing, TorchScript, quantization, the meta device, forks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader, Dataset

from opennmt_sd import (
    MaskedLinear,
    StructuredDropout,
    StructuredGRU,
    StructuredGRUCell,
    StructuredLSTM,
    StructuredLSTMCell,
    convert,
    revert,
)

T, B, D, H = 5, 3, 4, 6


class Model(nn.Module):
    """All of ours, in a forward that torch can trace and script."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, D)
        self.drop = StructuredDropout(0.5)
        self.lstm = nn.LSTM(D, H, 2)
        self.cell = StructuredLSTMCell(H, H, recurrent_dropout=0.3)
        self.gru = nn.GRU(H, H, 2)
        self.gru_cell = StructuredGRUCell(H, H, input_dropout=0.3)
        self.out = MaskedLinear(H, 20)
        convert(self, recurrent_dropout=0.3)

    def forward(self, ids: Tensor) -> Tensor:
        y, (h, c) = self.lstm(self.drop(self.embed(ids)))
        h, c = self.cell(y[0], (h[0], c[0]))
        y, state = self.gru(y)
        return self.out(y) + self.out(self.gru_cell(h, state[0]))


def seeded(model: nn.Module, ids: Tensor) -> Tensor:
    torch.manual_seed(7)
    return model(ids)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_tracing(training: bool) -> None:
    """Each of ours is one node, as nn.LSTM is, and drops when the traced model runs."""
    model = Model().train(training)
    traced = fx.symbolic_trace(model)
    called = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    assert called == ["embed", "drop", "lstm", "cell", "gru", "out", "gru_cell", "out"]
    ids = torch.randint(20, (T, B))
    assert torch.equal(seeded(traced, ids), seeded(model, ids))


def test_tracing_with_keywords(kind) -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = kind.ours(D, H, input_dropout=0.5)

        def forward(self, x: Tensor, h: Tensor) -> Tensor:
            return self.layer(x, hx=kind.hx([h] * len(kind.states)))[0]

    model = Inner()
    x, h = torch.randn(T, B, D), torch.randn(1, B, H)
    torch.manual_seed(7)
    want = model(x, h)
    torch.manual_seed(7)
    assert torch.equal(fx.symbolic_trace(model)(x, h), want)


def test_a_linear_is_traced_by_itself_in_evaluation() -> None:
    linear = MaskedLinear(D, H).eval()
    x = torch.randn(T, B, D)
    assert torch.equal(fx.symbolic_trace(linear)(x), linear(x))


def test_scripting_what_was_reverted() -> None:
    """The remedy that the refusal names."""
    model = Model()
    with pytest.raises(NotImplementedError, match=r"opennmt_sd\.revert\(model\)$"):
        torch.jit.script(model)
    ids = torch.randint(20, (T, B))
    want = model.eval()(ids)
    scripted = torch.jit.script(revert(model))
    assert torch.equal(scripted(ids), want)


def test_scripting_a_subclass_names_what_works(kind) -> None:
    class Own(kind.ours):
        pass

    own = Own(D, H)
    with pytest.raises(NotImplementedError) as error:
        torch.jit.script(own)
    assert str(error.value) == (
        "Own cannot be scripted (torch.jit.script): load its state_dict() into a model of torch's "
        "own modules, and script that"
    )
    plain = kind.stock(D, H)
    plain.load_state_dict(own.state_dict())
    torch.jit.script(plain)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_quantization_tells_what_it_leaves_out() -> None:
    model = Model().eval()
    ids = torch.randint(20, (T, B))
    want = model(ids)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        quantized = torch.ao.quantization.quantize_dynamic(model)
    texts = [str(w.message) for w in caught if "opennmt_sd" in str(w.message)]
    names = ["StructuredDropout", "StructuredLSTM", "StructuredLSTMCell", "StructuredGRU",
             "StructuredGRUCell", "MaskedLinear"]  # fmt: skip
    assert texts == [
        f"torch's quantization does not know {name} and leaves it as it is: quantize "
        "opennmt_sd.revert(model) instead, which has torch's own modules and computes the same in "
        "evaluation"
        for name in names
    ], "once for each type"
    assert torch.equal(quantized(ids), want)
    assert not hasattr(model.lstm, "qconfig")
    assert not hasattr(model.gru, "qconfig")

    quantized = torch.ao.quantization.quantize_dynamic(revert(model))  # the remedy
    assert isinstance(quantized.lstm, torch.ao.nn.quantized.dynamic.LSTM)
    assert isinstance(quantized.gru, torch.ao.nn.quantized.dynamic.GRU)
    assert isinstance(quantized.out, torch.ao.nn.quantized.dynamic.Linear)
    torch.testing.assert_close(quantized(ids), want, rtol=0.1, atol=0.1)


LAYOUTS: dict[str, Callable[[], Any]] = {
    "3-D": lambda: torch.empty(T, B, D, device="meta"),
    "packed": lambda: PackedSequence(torch.empty(6, D, device="meta"), torch.tensor([3, 2, 1])),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.usefixtures("any_engine")
def test_shapes_on_the_meta_device(kind, layout: str, training: bool) -> None:
    """A model's shapes, and those of its gradients, without a number computed."""
    sizes = {"dropout": 0.5, "input_dropout": 0.5, "recurrent_dropout": 0.5, "device": "meta"}
    layer = kind.ours(D, H, 2, bidirectional=True, **sizes).train(training)
    y, hx = layer(LAYOUTS[layout]())
    rows = y.data if layout == "packed" else y
    assert rows.shape == (*LAYOUTS[layout]().data.shape[:-1], 2 * H)
    assert {h.shape for h in kind.parts(hx)} == {(4, B, H)}
    assert {t.device.type for t in (rows, *kind.parts(hx))} == {"meta"}


def test_other_modules_on_the_meta_device(kind) -> None:
    x = torch.empty(T, B, D, device="meta")
    assert MaskedLinear(D, H, device="meta")(x).shape == (T, B, H)
    assert StructuredDropout(0.5)(x).shape == x.shape
    cell = kind.our_cell(D, H, recurrent_dropout=0.5, input_dropout=0.5, device="meta")
    assert {h.shape for h in kind.parts(cell(x[0]))} == {(B, H)}


def busy(model: nn.Module) -> None:
    """Work that runs on several threads, where there are."""
    x = torch.randn(20, 20, 256)
    y = model(x)
    y.sum().backward()
    model.eval()
    model(x)
    model.train()


def wide() -> nn.Module:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = StructuredLSTM(256, 256, 2, bidirectional=True, dropout=0.5,
                                       input_dropout=0.5, recurrent_dropout=0.5)  # fmt: skip
            self.gru = StructuredGRU(512, 512, input_dropout=0.5, recurrent_dropout=0.5)
            self.theirs = nn.Linear(512, 2000)
            self.out = MaskedLinear(2000, 100)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.theirs(self.gru(self.lstm(x)[0])[0]))

    return Wide()


def test_a_forked_child_does_not_hang() -> None:
    """Training and evaluation, torch's own layers included, after the parent has run them."""
    model = wide()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # in one thread nothing hangs
    try:
        busy(model)
        child = os.fork()
        if child == 0:
            os._exit(_code_of(lambda: busy(model)))
        assert _wait(child) == 0
        assert torch.get_num_threads() == 2, "the parent keeps its threads"
    finally:
        torch.set_num_threads(threads)


def _code_of(work: Callable[[], None]) -> int:
    try:
        work()
    except BaseException:  # noqa: BLE001 - a child must not come back into pytest
        return 1
    return 0


def _wait(child: int, seconds: float = 60) -> int:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1


class Encoded(Dataset[Tensor]):
    """Items that a model encodes in a worker."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval()

    def __len__(self) -> int:
        return 4

    @torch.no_grad()
    def __getitem__(self, index: int) -> Tensor:
        return self.model(torch.full((20, 20, 256), float(index)))


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork"
)
def test_workers_of_a_data_loader() -> None:
    model = wide()
    busy(model)
    loader = DataLoader(Encoded(model), num_workers=2, timeout=60, multiprocessing_context="fork")
    got = torch.cat(list(loader))
    want = torch.stack([Encoded(model)[k] for k in range(4)])
    torch.testing.assert_close(got, want)
