"""A step of torch's own LSTM cell as one node: what torch's gives, whatever is asked of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from opennmt_sd import DropoutPattern, StructuredLSTMCell, ops
from opennmt_sd.nn import cell as cell_module
from opennmt_sd.ops.cpu import native, whole_step
from opennmt_sd.ops.cpu.whole_step import lstm_step, serves

pytestmark = pytest.mark.skipif(native() is None, reason="the native module was not built")

B, D, H = 3, 5, 4


def operands(dtype: torch.dtype = torch.float64, bias: bool = True) -> list[Any]:
    torch.manual_seed(0)
    cell = nn.LSTMCell(D, H, bias, dtype=dtype)
    biases = [cell.bias_ih, cell.bias_hh] if bias else [None, None]
    given = [torch.randn(B, n, dtype=dtype, requires_grad=True) for n in (D, H, H)]
    return [*given, cell.weight_ih, cell.weight_hh, *biases]


def theirs(x: Tensor, h: Tensor, c: Tensor, *weights: Any) -> tuple[Tensor, Tensor]:
    return torch.lstm_cell(x, (h, c), *weights)


def results(step: Any, given: list[Any], **more: Any) -> list[Tensor]:
    h, c = step(*given)
    tensors = [x for x in given if x is not None and x.requires_grad]
    loss = (h * torch.linspace(-1, 1, H, dtype=h.dtype)).sum() + c.pow(2).sum()
    return [h, c, *torch.autograd.grad(loss, tensors, **more)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_torchs(bias, dtype) -> None:
    given = operands(dtype, bias)
    assert serves(*given)
    torch.testing.assert_close(results(lstm_step, given), results(theirs, given))


@pytest.mark.parametrize("frozen", range(7))
def test_what_asks_for_no_gradient_gets_none(frozen) -> None:
    given = operands()
    given[frozen].requires_grad_(False)
    torch.testing.assert_close(results(lstm_step, given), results(theirs, given))


@pytest.mark.parametrize("lost", [0, 1])
def test_one_output_alone(lost) -> None:
    given = operands()
    found, expected = (
        torch.autograd.grad(step(*given)[1 - lost].sum(), given[:3]) for step in (lstm_step, theirs)
    )
    torch.testing.assert_close(found, expected)


def test_second_derivatives() -> None:
    given = operands()
    assert torch.autograd.gradgradcheck(lstm_step, given)


def test_outputs_may_be_changed_in_place() -> None:
    def changed(step: Any) -> Any:
        def run(*given: Any) -> tuple[Tensor, Tensor]:
            h, c = step(*given)
            return h.mul_(2), c.mul_(3)

        return run

    given = operands()
    expected = results(changed(theirs), given)
    torch.testing.assert_close(results(changed(lstm_step), given), expected)


def test_the_gradients_of_both_biases_are_two_tensors() -> None:
    """SGD that adds to one of them in place would add to both."""
    given = operands()
    *_, first, second = results(lstm_step, given)
    assert first.data_ptr() != second.data_ptr()


def test_no_rows() -> None:
    given = operands()
    given[:3] = (x[:0].detach().requires_grad_() for x in given[:3])
    torch.testing.assert_close(results(lstm_step, given), results(theirs, given))


def test_where_it_does_not_serve() -> None:
    given = operands()
    assert not serves(*given[:-1], given[-1].float())
    assert not serves(*(x.half() for x in given))
    with torch.autocast("cpu", torch.bfloat16):
        assert not serves(*given)
    seen = torch.func.vmap(lambda x: x if serves(x) else 0 * x)(torch.ones(2, 3))
    assert not seen.any()


@pytest.mark.parametrize("recurrent", [True, False])
def test_a_small_step_of_a_cell_takes_it_and_nothing_else_does(recurrent, monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(
        cell_module, "lstm_step", lambda *given: calls.append(given) or lstm_step(*given)
    )
    cell = StructuredLSTMCell(D, H, input_dropout=0.5, recurrent_dropout=0.5 if recurrent else 0)
    x = torch.randn(B, D)
    cell(x)
    assert len(calls) == 1
    cell.eval()(x)
    cell.train().input_dropout = cell.recurrent_dropout = 0.0
    cell(x)
    cell.input_dropout = 0.5
    for engine in ("cpu", "naive"):
        with ops.use(engine):
            cell(x)
    assert len(calls) == 1


def test_a_loop_of_steps_gives_what_torchs_gives(monkeypatch) -> None:
    pattern = DropoutPattern(0.5)
    cell = StructuredLSTMCell(D, H, input_dropout=pattern, recurrent_dropout=pattern).double()
    xs = torch.randn(6, B, D, dtype=torch.float64)

    def run() -> list[Tensor]:
        torch.manual_seed(3)
        state, outputs = None, []
        for x in xs:
            state = cell(x, state)
            outputs.append(state[0])
        loss = torch.stack(outputs).pow(2).sum()
        return [loss, *torch.autograd.grad(loss, list(cell.parameters()))]

    found = run()
    monkeypatch.setattr(cell_module, "serves", lambda *_: False)
    torch.testing.assert_close(found, run())
    assert whole_step.serves(*cell.parameters())
