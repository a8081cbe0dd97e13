"""What all engines share, and how one is chosen."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from opennmt_sd import DropoutPattern, MaskedLinear, StructuredLSTM, ops
from opennmt_sd.ops.engine import Engine, GRULayer, Loss, LSTMLayer, Projection
from opennmt_sd.ops.engines import ENGINES

CONTRACT = [name for name in vars(Engine) if not name.startswith("_")]
RECORDS = {"masked_linear": (Projection,), "lstm_layer": (LSTMLayer,),
           "gru_layer": (GRULayer,), "projected_nll": (Projection, Loss)}  # fmt: skip


def parameters(function: Any) -> list[tuple[str, Any]]:
    given = inspect.signature(function).parameters.values()
    return [(p.name, p.default) for p in given if p.name != "self"]


@pytest.mark.parametrize("name", CONTRACT)
def test_engines_keep_the_contract(any_engine: str, name: str) -> None:
    assert parameters(getattr(ENGINES[any_engine], name)) == parameters(getattr(Engine, name))


@pytest.mark.parametrize("name", RECORDS)
def test_the_public_op_takes_what_the_engines_take(name: str) -> None:
    """A field of a record is an argument of its op, with the same default if it has one."""
    fields = [field for record in RECORDS[name] for field in record._fields]
    fields.remove("lowers")  # which autocast says
    defaults = {f: d for record in RECORDS[name] for f, d in record._field_defaults.items()}
    public = dict(parameters(getattr(ops, name)))
    assert sorted(public) == sorted(fields)
    given = {f: d for f, d in public.items() if d is not inspect.Parameter.empty}
    assert given.items() <= defaults.items()


def spied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The engines that ran, in order."""
    ran: list[str] = []
    for name, module in ENGINES.items():

        def gates(*given, name=name, real=module.lstm_gates):
            ran.append(name)
            return real(*given)

        monkeypatch.setattr(module, "lstm_gates", gates)
    return ran


def step() -> None:
    ops.lstm_gates(torch.zeros(3, 8), torch.zeros(3, 2))


def test_use_as_a_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = spied(monkeypatch)
    automatic = ops.engine_for("cpu", torch.float32)
    step()
    ops.use("naive")
    assert ops.forced() == ops.engine_for("cpu", torch.float32) == "naive"
    step()
    ops.use("auto")
    assert ops.forced() is None
    assert ops.engine_for("cpu", torch.float32) == automatic
    step()
    assert ran == [automatic, "naive", automatic]
    assert automatic != "naive", "naive is for tests: never chosen by itself"


def test_use_around_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = spied(monkeypatch)
    with ops.use("naive"):
        step()
        with ops.use("portable"):
            step()
        step()
    assert ran == ["naive", "portable", "naive"]
    assert ops.forced() is None


def test_use_ends_with_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError), ops.use("naive"):
        1 / 0  # noqa: B018
    assert ops.forced() is None


def test_an_unknown_engine_changes_nothing() -> None:
    ops.use("naive")
    with pytest.raises(ValueError) as error:
        ops.use("cuda")
    assert str(error.value) == (
        f"there is no engine 'cuda': use one of auto, {', '.join(sorted(ENGINES))}"
    )
    assert ops.forced() == "naive"


def test_the_backward_pass_stays_with_its_engine(compacting: str) -> None:
    keep = DropoutPattern(0.5).draw(2, 2, 2)
    x = torch.ones(2, 2, 2, requires_grad=True)
    with ops.use(compacting):
        y = ops.masked_linear(x, keep, torch.ones(3, 2, requires_grad=True))
    ops.use("naive")
    with pytest.raises(RuntimeError, match=f"not supported by the {compacting} engine"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


@pytest.mark.parametrize("space", ["structured", "random"])
@pytest.mark.parametrize("time", ["random", "fixed"])
def test_one_seed_gives_the_same_bits(any_engine: str, space: str, time: str) -> None:
    def run() -> list[torch.Tensor]:
        torch.manual_seed(5)
        pattern = DropoutPattern(0.5, space, time)
        x, w = torch.randn(6, 4, 33), torch.randn(4 * 17, 33) / 6
        w_hh, state = torch.randn(4 * 17, 17) / 4, torch.zeros(4, 17)
        gru = torch.randn(3 * 17, 33) / 6, torch.randn(3 * 17, 17) / 4
        leaves = [t.requires_grad_() for t in (x, w, w_hh, *gru)]
        y = ops.masked_linear(x, pattern.draw(6, 4, 33), w)
        keeps = pattern.draw(6, 4, 33), pattern.draw(6, 4, 17)
        outputs = [
            y,
            *ops.lstm_layer(x, keeps[0], w, None, w_hh, state, state, keeps[1]),
            *ops.gru_layer(x, keeps[0], gru[0], None, gru[1], None, state, keeps[1]),
        ]
        return [*outputs, *torch.autograd.grad(sum(t.sum() for t in outputs), leaves)]

    for first, again in zip(run(), run()):
        assert torch.equal(first, again)


@pytest.mark.parametrize("space", ["structured", "random"])
@pytest.mark.parametrize("time", ["random", "fixed"])
def test_one_seed_drops_the_same_on_every_engine(engine: str, space: str, time: str) -> None:
    x, w = torch.ones(6, 4, 33, requires_grad=True), torch.ones(2, 33)
    dropped = []
    for name in (engine, "naive"):
        torch.manual_seed(5)
        with ops.use(name):
            y = ops.masked_linear(x, DropoutPattern(0.5, space, time).draw(6, 4, 33), w)
        dropped.append(torch.autograd.grad(y.sum(), x)[0] == 0)
    assert torch.equal(*dropped)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_the_default_device_is_not_asked(any_engine: str, packed: bool) -> None:
    """Modules on the CPU, while torch makes new tensors elsewhere."""
    half = DropoutPattern(0.5)
    model = StructuredLSTM(6, 5, 2, input_dropout=half, dropout=DropoutPattern(0.5, "random"),
                           recurrent_dropout=half, bidirectional=True)  # fmt: skip
    out, memory = MaskedLinear(10, 3), torch.randn(4, 2, 3)
    x = torch.randn(3, 4, 6, requires_grad=True)
    given = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 3, 2, 1]))
    lengths, targets = torch.tensor([2, 2, 1, 1]), torch.zeros(12, dtype=torch.int64)

    def run() -> list[torch.Tensor]:
        torch.manual_seed(3)
        y = out(model(given if packed else x)[0])
        rows = y.data if packed else y.flatten(0, 1)
        handle, attended = ops.prepare(out.weight[:, :3]), ops.prepare_memory(memory, lengths)
        step = ops.masked_linear_step(handle, rows[:4], half.draw(3, 4, 3), 1)
        context, _ = ops.attend_step(attended, step)
        h, _ = ops.lstm_gates(torch.cat([context] * 4, 1), step)
        gates = torch.cat([context] * 3, 1)
        layer = gates[None], None, gates.new_ones(9, 9), None, gates.new_ones(9, 3), None, h
        h = ops.gru_gates(gates, gates, h) + ops.gru_layer(*layer)[1]
        keep = half.draw(1, len(rows), 3)
        loss, _ = ops.projected_nll(rows[None], keep, out.weight[:, :3], None,
                                    targets[None, : len(rows)])  # fmt: skip
        leaves = [x, *model.parameters()]
        return [rows.detach(), *torch.autograd.grad(h.sum() + loss, leaves, retain_graph=True)]

    want = run()
    with torch.device("meta"):
        got = run()
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)


def test_a_model_without_data(any_engine: str) -> None:
    """On the meta device: shapes alone, recurrent dropout and masks of each sample's own too."""
    for space in ("structured", "random"):
        half = DropoutPattern(0.5, space)
        model = StructuredLSTM(6, 5, 2, input_dropout=half, recurrent_dropout=half, device="meta")
        y, (h, c) = model(torch.zeros(3, 4, 6, device="meta"))
        assert [y.shape, h.shape, c.shape] == [(3, 4, 5), (2, 4, 5), (2, 4, 5)]
        assert {t.device.type for t in (y, h, c)} == {"meta"}
        y.sum().backward()
        assert model.weight_ih_l0.grad.shape == (20, 6)
