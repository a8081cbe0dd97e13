"""``StructuredLSTM``, ``StructuredGRU`` in training, against a loop over samples and steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from opennmt_sd import DropoutPattern, KeepMask, StructuredLSTM
from opennmt_sd.dropout import Keep

T, B, D, H = 5, 3, 4, 6
INPUT, BETWEEN, RECURRENT = 0.3, 0.4, 0.6  # a rate for each place tells the draws apart

CASES = {"I": ("random", "random"), "II": ("random", "fixed"),
         "III": ("structured", "random"), "IV": ("structured", "fixed")}  # fmt: skip
PLACES = {
    "input": {"input_dropout": INPUT},
    "between": {"dropout": BETWEEN},
    "recurrent": {"recurrent_dropout": RECURRENT},
    "all": {"input_dropout": INPUT, "dropout": BETWEEN, "recurrent_dropout": RECURRENT},
}
every_case = pytest.mark.parametrize("case", CASES)


def build(kind, case: str, rates: dict[str, float], both: bool = False, layers: int = 2) -> Any:
    patterns = {n: DropoutPattern(p, *CASES[case]) for n, p in rates.items()}
    return kind.ours(D, H, layers, bidirectional=both, dtype=torch.float64, **patterns)


def lstm_step(x: Tensor, h: Tensor, c: Tensor, read: Tensor, *weights: Tensor) -> Any:
    """Torch's cell reads h in its product alone."""
    return torch.lstm_cell(x, (read, c), *weights)


def gru_step(x: Tensor, h: Tensor, read: Tensor, *weights: Tensor) -> Any:
    """What is dropped is what the product reads; the update gate carries h over as it is."""
    w_ih, w_hh, b_ih, b_hh = weights
    (r_x, z_x, n_x), (r_h, z_h, n_h) = (
        F.linear(*given).chunk(3, 1) for given in ((x, w_ih, b_ih), (read, w_hh, b_hh))
    )
    r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
    return ((1 - z) * torch.tanh(n_x + r * n_h) + z * h,)


def reference(
    layer: Any, x: Tensor, lengths: list[int], drawn: dict[float, list[Keep]]
) -> tuple[Tensor, ...]:
    """The contract, one sample and one step at a time: ``x [T, B, D]``.

    Sets apply by absolute position; both directions of a layer read one dropped input; each has
    recurrent sets of its own; what comes out is undropped.
    """

    def dropped(x: Tensor, keep: Keep | None, t: int, b: int) -> Tensor:
        if keep is None:
            return x
        mask = keep.mask()[t if keep.steps > 1 else 0]
        return x * mask[b if len(mask) > 1 else 0] * keep.scale

    rates = {
        "input": layer.input_dropout,
        "between": layer.dropout,
        "state": layer.recurrent_dropout,
    }
    draws = {n: iter(drawn[p.p]) if p.active else None for n, p in rates.items()}
    x = x.clone()
    step, parts = (lstm_step, 2) if isinstance(layer, StructuredLSTM) else (gru_step, 1)
    finals: list[tuple[Tensor, ...]] = []
    for k in range(layer.num_layers):
        entering = draws["between" if k else "input"]
        keep = next(entering) if entering else None
        outputs = []
        for d, suffix in enumerate(["", "_reverse"][: 1 + layer.bidirectional]):
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            weights = [getattr(layer, f"{name}_l{k}{suffix}") for name in names]
            state_keep = next(draws["state"]) if draws["state"] else None
            columns, states = [], []
            for b, length in enumerate(lengths):
                state = (x.new_zeros(1, H),) * parts
                out: list[Any] = [x.new_zeros(1, H)] * T  # padding
                for t in reversed(range(length)) if d else range(length):
                    row = dropped(x[t, b], keep, t, b)[None]
                    state = step(row, *state, dropped(state[0], state_keep, t, b), *weights)
                    out[t] = state[0]
                columns.append(torch.cat(out))  # [T, H]
                states.append(state)
            outputs.append(torch.stack(columns, 1))  # [T, B, H]
            finals.append(tuple(torch.cat(s) for s in zip(*states)))  # type: ignore[arg-type]
        x = torch.cat(outputs, -1)
    for name, left in draws.items():
        assert left is None or not list(left), f"{name}: more was drawn than is needed"
    return x, *(torch.stack(s) for s in zip(*finals))


# Every case at every place, and every pair of one of these and how it is run.
CHOICES = [
    (case, place, (i + j) % 2 > 0, (i // 2 + j) % 2 > 0)
    for i, case in enumerate(CASES) for j, place in enumerate(PLACES)
]  # fmt: skip


@pytest.mark.parametrize(("case", "place", "both", "packed"), CHOICES)
def test_is_what_the_contract_says(
    any_engine: str, kind, case: str, place: str, both: bool, packed: bool, drawn
) -> None:
    lengths = [2, 5, 1] if packed else [T] * B
    layer = build(kind, case, PLACES[place], both)
    x = torch.randn(T, B, D, dtype=torch.float64, requires_grad=True)
    given: Any = x
    if packed:
        given = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    y, hx = layer(given)
    if packed:
        # A mask's rows are those of the sorted batch; the reference wants them as given.
        back = y.unsorted_indices
        for keeps in drawn.values():
            keeps[:] = [KeepMask(k.mask()[:, back], k.scale) if isinstance(k, KeepMask) else k
                        for k in keeps]  # fmt: skip
        y, _ = pad_packed_sequence(y, total_length=T)
    want = reference(layer, x, lengths, drawn)
    leaves = [x, *layer.parameters()]
    got = [y, *kind.parts(hx)]
    cotangents = [torch.randn_like(t) for t in got]
    got_grads = torch.autograd.grad(got, leaves, cotangents)
    want_grads = torch.autograd.grad(want, leaves, cotangents)
    names = ["x", *(n for n, _ in layer.named_parameters())]
    for name, a, b in zip(("y", "h_n", "c_n"), got, want):
        torch.testing.assert_close(a, b, msg=lambda m, n=name: f"{n}: {m}")
    for name, a, b in zip(names, got_grads, want_grads):
        torch.testing.assert_close(a, b, msg=lambda m, n=name: f"gradient of {n}: {m}")


@every_case
def test_unbatched_and_batch_first_drop_by_step(kind, case: str, drawn) -> None:
    """The time axis is found in every layout: sets are drawn for T steps, not for B."""
    x = torch.randn(T, B, D, dtype=torch.float64)
    layer = build(kind, case, PLACES["all"], both=True)
    layer.batch_first = True
    y, _ = layer(x.transpose(0, 1))
    want, *_ = reference(layer, x, [T] * B, drawn)
    torch.testing.assert_close(y.transpose(0, 1), want)
    drawn.clear()
    y, _ = layer(x[:, 0])
    want, *_ = reference(layer, x[:, :1], [T], drawn)
    torch.testing.assert_close(y, want[:, 0])


@every_case
@pytest.mark.parametrize("both", [False, True], ids=["one way", "two ways"])
def test_sets_that_are_given(any_engine: str, kind, case: str, both: bool, drawn) -> None:
    layer = build(kind, case, PLACES["all"], both)
    x = torch.randn(T, B, D, dtype=torch.float64)
    keep = DropoutPattern(0.5, *CASES[case]).draw(T, B, D)
    y, _ = layer(x, input_keep=keep)
    assert drawn[INPUT] == [], "what is given is not drawn"
    drawn[INPUT] = [keep]
    torch.testing.assert_close(y, reference(layer, x, [T] * B, drawn)[0])
    layer.eval()
    assert torch.equal(layer(x, input_keep=keep)[0], layer(x)[0]), "evaluation drops nothing"
