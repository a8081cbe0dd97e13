"""A compiled model: one graph for the first shape, one for all others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from opennmt_sd import DropoutPattern, MaskedLinear, StructuredDropout, StructuredLSTM
from opennmt_sd.compat import KNOWS_OPS

pytestmark = [
    pytest.mark.usefixtures("native"),
    pytest.mark.skipif(not KNOWS_OPS, reason="custom ops need torch 2.4"),
    pytest.mark.slow,
]

SHAPES = [(3, 2), (4, 5), (5, 3), (7, 4), (6, 6), (9, 8), (10, 2), (11, 3), (12, 4), (13, 13)]
half, own = DropoutPattern(0.5), DropoutPattern(0.5, "random")
MODELS = {
    "linear": lambda: MaskedLinear(8, 6),
    "linear, own masks": lambda: MaskedLinear(8, 6, dropout=own),
    "dropout": lambda: nn.Sequential(StructuredDropout(0.5), nn.Linear(8, 6)),
    "lstm": lambda: StructuredLSTM(8, 6, input_dropout=half, recurrent_dropout=half),
    "lstm, own masks": lambda: StructuredLSTM(8, 6, batch_first=True, recurrent_dropout=own),
}


class Counter:
    """A backend that counts the graphs it is given."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return torch._dynamo.backends.registry.lookup_backend("aot_eager")(graph, inputs)


# As torch does: a graph of fixed sizes, then one of any. From the start of any: a kind of each.
CHOICES = [*((name, None) for name in MODELS), ("linear, own masks", True), ("lstm", True)]


@pytest.mark.parametrize(("model", "dynamic"), CHOICES)
def test_two_graphs_serve_all_shapes(model: str, dynamic: bool | None) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    counter, eager = Counter(), MODELS[model]()
    parameters = list(eager.parameters())

    def run(module: nn.Module, x: Tensor) -> list[Tensor]:
        torch.manual_seed(3)
        y = module(x)
        y = y[0] if isinstance(y, tuple) else y
        return [y.detach(), *torch.autograd.grad(y.square().sum(), [x, *parameters])]

    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(eager, backend=counter, fullgraph=True, dynamic=dynamic)
        for T, B in SHAPES:
            x = torch.randn(T, B, 8, requires_grad=True)
            for got, want in zip(run(compiled, x), run(eager, x), strict=True):
                torch.testing.assert_close(got, want)
    assert counter.graphs <= 2


def test_a_gru_layer_needs_no_more() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    counter = Counter()
    shapes = (18, 8), (18,), (18, 6), (6,)
    weights = [torch.randn(shape, requires_grad=True) for shape in shapes]

    def layer(x: Tensor, h: Tensor) -> Tensor:
        from opennmt_sd import ops

        w_ih, b, w_hh, b_hn = weights
        of_x, of_h = (half.draw(*x.shape[:2], D) for D in (8, 6))
        return ops.gru_layer(x, of_x, w_ih, b, w_hh, b_hn, h, of_h)[0]

    compiled = torch.compile(layer, backend=counter, fullgraph=True)
    for T, B in SHAPES:
        x, h, results = torch.randn(T, B, 8), torch.randn(B, 6), []
        for run in (compiled, layer):
            torch.manual_seed(3)
            y = run(x, h)
            results.append([y.detach(), *torch.autograd.grad(y.square().sum(), weights)])
        for got, want in zip(*results):
            torch.testing.assert_close(got, want)
    assert counter.graphs <= 2


LENGTHS = [(3, 2), (4, 4, 3), (5, 3, 2, 1), (7, 4), (6, 6, 2, 2, 2), (9, 8), (10, 2), (3, 3, 3)]


@pytest.mark.parametrize("own_masks", [False, True], ids=["sets", "own masks"])
def test_packed_rows_need_no_more(own_masks: bool) -> None:
    """A packed op, its draw included, in one graph for the first batch and one for the rest."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    weight, counter = torch.randn(6, 8, requires_grad=True), Counter()
    pattern = own if own_masks else half

    def project(x: Tensor, sizes: Tensor, B: int) -> Tensor:
        from opennmt_sd import ops

        return ops.masked_linear(x, pattern.draw(len(sizes), B, 8), weight, batch_sizes=sizes)

    compiled = torch.compile(project, backend=counter, fullgraph=True)
    for lengths in LENGTHS:
        packed = pack_padded_sequence(torch.randn(lengths[0], len(lengths), 8), lengths)
        results = []
        for run in (compiled, project):
            torch.manual_seed(3)
            y = run(packed.data, packed.batch_sizes, len(lengths))
            results.append([y.detach(), *torch.autograd.grad(y.square().sum(), weight)])
        for got, want in zip(*results):
            torch.testing.assert_close(got, want)
    assert counter.graphs <= 2


@pytest.mark.parametrize("model", ["linear", "lstm"])
def test_under_autocast_too(model: str) -> None:
    """In one graph, also where the size of a product decides what runs."""
    torch._dynamo.reset()
    module = {
        "linear": lambda: MaskedLinear(300, 1400),
        "lstm": lambda: StructuredLSTM(300, 200, input_dropout=half, recurrent_dropout=half),
    }[model]()
    x = torch.randn(20, 30, 300)
    found = []
    with torch._dynamo.config.patch(allow_rnn=True), torch.autocast("cpu", torch.bfloat16):
        for run in (module, torch.compile(module, backend="aot_eager", fullgraph=True)):
            torch.manual_seed(1)
            y = run(x)
            found.append(y[0] if isinstance(y, tuple) else y)
    assert found[0].dtype == torch.bfloat16
    assert torch.equal(*found)
