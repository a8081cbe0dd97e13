"""Layers of recurrent cells with structured dropout, whatever the cell: what all of them share.

Layouts, the initial state, layers and directions, the draws, the choice between our ops and torch's
own layer. A subclass (:mod:`opennmt_sd.nn.lstm`, :mod:`opennmt_sd.nn.gru`) brings our op and
torch's of its cell.

Inside, a state is a tuple of tensors ``[layers * directions, B, H]``: (h, c) of an LSTM, (h,) of a
GRU.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from opennmt_sd import ops
from opennmt_sd.dropout import DropoutPattern, Keep, KeepSets
from opennmt_sd.nn import flat
from opennmt_sd.nn.base import NOTHING, PatternAttribute, Structured
from opennmt_sd.nn.by_kernels import by_kernels
from opennmt_sd.nn.dropped_input import Layers, Operands, dropped_input, gathers_input
from opennmt_sd.nn.layout import sorted_as
from opennmt_sd.nn.precision import (
    autocasts,
    casting,
    computed_in,
    result_dtype,
    stock_dtype,
    without_autocast,
)
from opennmt_sd.nn.states import State, batched, permuted
from opennmt_sd.ops.autocast import cast
from opennmt_sd.ops.checks import check_keep

Patterns = dict[str, DropoutPattern]
PLACES = ("input_dropout", "dropout", "recurrent_dropout")


class Recurrent(Structured, nn.RNNBase):
    """Mixin before ``nn.LSTM`` and its like.

    Attributes:
        name: with its article, for messages.
        gates: rows of a weight, in units of H.
        state_names: of the tensors of a state, for messages.
        stock: torch's own computation; it takes and gives a state of one tensor bare.
        autocast_on_cpu: whether torch's autocast knows the layer there; not if it is packed.
        exact: see :class:`opennmt_sd.StructuredLSTM`.
    """

    name: ClassVar[str]
    gates: ClassVar[int]
    state_names: ClassVar[tuple[str, ...]]
    stock: ClassVar[Callable[..., tuple[Tensor, ...]]]
    autocast_on_cpu: ClassVar[bool]

    input_dropout = PatternAttribute()
    dropout = PatternAttribute()
    recurrent_dropout = PatternAttribute()
    exact = True

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int, bias: bool, batch_first: bool,
        bidirectional: bool, device: torch.device | str | None, dtype: torch.dtype | None,
        **dropout: DropoutPattern | float | None,
    ) -> None:  # fmt: skip
        """Make a layer of torch's that has a pattern in each of the places."""
        patterns = {place: DropoutPattern.of(dropout[place]) for place in PLACES}
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first,  # type: ignore[arg-type]
            0.0, bidirectional, device=device, dtype=dtype,  # type: ignore[arg-type] # no mode
        )  # fmt: skip
        _warn_of_one_layer(patterns["dropout"], num_layers)
        for place, pattern in patterns.items():
            setattr(self, place, pattern)

    def flatten_parameters(self) -> None:
        """Lay the weights out for cuDNN, as they are called: all layers together, or one by one."""
        flat.lay_out(self, self._apart())

    def _apart(self) -> bool:
        """Return whether each layer is a call of its own on a GPU, in evaluation too: there is a
        pattern between them."""
        return self.num_layers > 1 and self.dropout.active

    def _torch_layers(
        self, x: Tensor, state: State, weights: list[Tensor], layers: int, sizes: Tensor | None
    ) -> tuple[Tensor, State]:
        """Run torch's own dense computation, in the call that torch's module makes."""
        hx = state if len(state) > 1 else state[0]
        flags = self.bias, layers, 0.0, self.training, self.bidirectional
        if sizes is None:
            y, *final = self.stock(x, hx, weights, *flags, False)
        else:
            y, *final = self.stock(x, sizes, hx, weights, *flags)
        return y, tuple(final)

    def _our_direction(
        self, x: Tensor, keep: Keep | None, weights: list[Tensor], state: State,
        state_keep: Keep | None, sizes: Tensor | None, reverse: bool,
    ) -> tuple[Tensor, State]:  # fmt: skip
        """Run one layer in one direction on our ops; the state is ``[B, H]`` each."""
        raise NotImplementedError

    # ------------------------------------------------------------ from a call to rows and back

    def _forward(
        self, input: Tensor | PackedSequence, state: State | None, input_keep: Keep | None
    ) -> tuple[Tensor | PackedSequence, State]:
        """Run all layers on any layout; give the output in the same, and the final state."""
        if isinstance(input, PackedSequence):
            x, sizes, order, back = input
            self.check_input(x, sizes)
            state = self._checked(int(sizes[0]), permuted(state, order), x)
            input_keep = sorted_as(input, input_keep)
            x, final = self._run(x, state, sizes, input_keep)
            return PackedSequence(x, sizes, order, back), permuted(final, back)

        if input.dim() not in (2, 3):
            raise ValueError(
                f"input must be 3-D, or 2-D (unbatched), or packed; got {list(input.shape)}"
            )
        unbatched = input.dim() == 2
        batch_first = self.batch_first and not unbatched
        x = input.unsqueeze(1) if unbatched else input.transpose(0, 1) if batch_first else input
        if state is not None:
            state = batched(state, unbatched)
        self.check_input(x, None)
        if not x.shape[0]:
            raise RuntimeError(f"{self.name} needs at least one step, got a sequence of length 0")
        x, final = self._run(x, self._checked(x.shape[1], state, x), None, input_keep)
        if unbatched:
            return x.squeeze(1), tuple(s.squeeze(1) for s in final)
        return x.transpose(0, 1) if batch_first else x, final

    def _checked(self, B: int, state: State | None, x: Tensor) -> State:
        """Return the initial state, zeros by default, checked as torch checks it."""
        rows = self.num_layers * (2 if self.bidirectional else 1)
        expected = (rows, B, self.hidden_size)
        if state is None:
            return (x.new_zeros(expected),) * len(self.state_names)
        if len(state) != len(self.state_names):
            raise RuntimeError(
                f"{self.name} needs an hx of {len(self.state_names)} tensors, got {len(state)}"
            )
        for given, name in zip(state, self.state_names):
            self.check_hidden_size(given, expected, f"Expected {name} size {{}}, got {{}}")
        return state

    # ------------------------------------------------------------ the layers

    def _run(
        self, x: Tensor, state: State, sizes: Tensor | None, input_keep: Keep | None
    ) -> tuple[Tensor, State]:
        """Run all layers, on x time first or packed, with a given state."""
        weights = [self._weights(k) for k in range(self.num_layers)]
        input_keep = input_keep if self.training else None
        dtype = result_dtype(x, state[-1], self.autocast_on_cpu and sizes is None)
        stock = stock_dtype(x, dtype)
        left_to_torch = ops.left_to_torch()
        launches = left_to_torch and not ops.reads_back(x)
        if flat.wanted(x):
            flat.keep_laid_out(self, self._apart())
        drops = self._drops(input_keep) or (launches and self._apart())
        if not (drops or not left_to_torch or self._packed_kernels(x, sizes, dtype)):
            return self._torch(x, state, weights, sizes, dtype)

        T, B = (x.shape[0], x.shape[1]) if sizes is None else (len(sizes), state[0].shape[1])
        check_keep(input_keep, T, B, self.input_size)
        recurrent = self.training and self.recurrent_dropout.active
        alike = launches and not self._apart() and not recurrent
        calls = [weights] if alike else [[directions] for directions in weights]
        finals: list[State] = []
        for k, layers in enumerate(calls):
            pattern = self.dropout if k else self.input_dropout
            given = None if k else input_keep
            count = len(layers) * len(layers[0])
            of_call = slice(k * count, (k + 1) * count)
            first = state if len(calls) == 1 else tuple(s[of_call] for s in state)
            operands = x, first, layers
            if self._ours(x, pattern, given, sizes, dtype):
                x, final = self._layer(x, pattern, given, first, layers[0], sizes, T, B, dtype)
            elif by_kernels(self, operands, sizes, T, B, stock):
                with ops.kernels_alone():
                    x, final = self._layer(x, pattern, given, first, layers[0], sizes, T, B, stock)
            else:  # nothing that a smaller product would serve: torch's own layers, one call
                run = functools.partial(self._dropped, sizes=sizes, dtype=dtype)
                rule = pattern if self.training else NOTHING
                gathers = gathers_input(self.mode, operands, given or rule, sizes, T, B, run)
                dense = not (gathers and pattern.shared)
                keep = given or self._draw(pattern, T, B, x.shape[-1], dense=dense)
                x, final = run(operands, keep, gathers)
            finals.append(final)
        if len(finals) == 1:  # even of one tensor, cat would make a copy
            return x, finals[0]
        return x, tuple(torch.cat(states) for states in zip(*finals))

    def _drops(self, input_keep: Keep | None) -> bool:
        """Return whether this call drops anything."""
        if not self.training:
            return False
        between = self.dropout.active and self.num_layers > 1
        drops = self.input_dropout.active or self.recurrent_dropout.active or between
        return input_keep is not None or drops

    def _ours(
        self, x: Tensor, pattern: DropoutPattern, given: Keep | None, sizes: Tensor | None,
        dtype: torch.dtype,
    ) -> bool:  # fmt: skip
        """Return whether a layer on x runs on our ops, and not as torch's own on a masked input."""
        if x.is_meta:  # shapes alone
            return False
        if (self.training and self.recurrent_dropout.active) or not ops.left_to_torch():
            return True
        drawn = self.training and pattern.active and pattern.structured
        sets = isinstance(given, KeepSets) if given is not None else drawn
        D, H = x.shape[-1], self.hidden_size
        multiplications = x.numel() // D * (D + H) * self.gates * H
        compacts = sets and ops.leaves_out(x, multiplications, small=ops.SMALL_LAYER)
        return compacts or (sizes is not None and ops.has_kernels(x, dtype))

    def _layer(
        self, x: Tensor, pattern: DropoutPattern, given: Keep | None, state: State,
        directions: list[list[Tensor]], sizes: Tensor | None, T: int, B: int, dtype: torch.dtype,
    ) -> tuple[Tensor, State]:  # fmt: skip
        """Run one layer on our ops."""
        computed = computed_in(x, dtype)
        dense = ops.left_to_torch() and not ops.has_kernels(x, computed)
        keep = given or self._draw(pattern, T, B, x.shape[-1], dense=dense)
        outputs: list[Tensor] = []
        finals: list[State] = []
        casts, context = casting(x, computed, dtype)
        with context:
            if casts:
                x, directions = cast([x], computed)[0], [cast(w, computed) for w in directions]
            for d, weights in enumerate(directions):
                first = tuple(s[d] for s in state)
                first = tuple(cast(first, computed)) if casts else first
                state_keep = self._draw(self.recurrent_dropout, T, B, self.hidden_size, dense=dense)
                y, final = self._our_direction(x, keep, weights, first, state_keep, sizes, d == 1)
                if y.dtype != dtype:
                    y, final = y.to(dtype), tuple(s.to(dtype) for s in final)
                outputs.append(y)
                finals.append(final)
        # Even of one tensor, cat would make a copy. Of a state it has to be one: torch detaches no
        # view in place.
        y = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
        return y, tuple(torch.stack(states) for states in zip(*finals))

    def _torch(
        self, x: Tensor, state: State, weights: Layers, sizes: Tensor | None,
        dtype: torch.dtype,
    ) -> tuple[Tensor, State]:  # fmt: skip
        """Run layers as torch's own."""
        flat = [w for layer in weights for direction in layer for w in direction]
        context: AbstractContextManager[Any] = nullcontext()
        if self.autocast_on_cpu and autocasts(x):
            # torch's own casts come too late for processors without bfloat16.
            if sizes is None:
                x, *rest = cast([x, *state], dtype)
                state = tuple(rest)
            elif x.is_cpu and int(sizes[0]) == int(sizes[-1]):  # it runs these as padded rows
                x, *rest = cast([x, *state, *flat], dtype)
                state, flat = tuple(rest[: len(state)]), rest[len(state) :]
                context = without_autocast(x)
        with context:
            return self._torch_layers(x, state, flat, len(weights), sizes)

    def _dropped(
        self, operands: Operands, keep: Keep | None, gathers: bool, sizes: Tensor | None,
        dtype: torch.dtype,
    ) -> tuple[Tensor, State]:  # fmt: skip
        """Run layers as torch's own, on an input that is dropped from."""
        x, weights = dropped_input(operands[0], keep, operands[2], sizes, gathers)
        return self._torch(x, operands[1], weights, sizes, dtype)

    def _packed_kernels(self, x: Tensor, sizes: Tensor | None, dtype: torch.dtype) -> bool:
        """Return whether packed rows that drop nothing go to the native kernels all the same:
        torch runs them step by step."""
        return not self.exact and sizes is not None and ops.has_kernels(x, dtype)

    def _weights(self, layer: int) -> list[list[Tensor]]:
        """Return each direction's weight_ih, weight_hh and, with bias, bias_ih and bias_hh.

        Read as attributes at every call, so that parametrizations take effect.
        """
        count = 2 if self.bidirectional else 1
        names = self._all_weights[layer * count : (layer + 1) * count]  # as torch lists them
        return [[getattr(self, name) for name in direction] for direction in names]

    def extra_repr(self) -> str:
        shape = [f"{self.input_size}, {self.hidden_size}"]
        shape += [f"num_layers={self.num_layers}"] if self.num_layers != 1 else []
        shape += [f"{n}={getattr(self, n)}" for n in ("batch_first", "bidirectional") if
                  getattr(self, n)]  # fmt: skip
        shape += ["bias=False"] if not self.bias else []
        patterns = {name: getattr(self, name) for name in PLACES}
        return ", ".join(shape + [f"{n}={p}" for n, p in patterns.items() if p.active])


def _warn_of_one_layer(dropout: DropoutPattern, num_layers: int) -> None:
    """Warn, as torch does, of a rate that drops nothing."""
    if dropout.active and num_layers == 1:
        warnings.warn(
            f"dropout={dropout.p} is between layers, and num_layers=1 has nothing between: it "
            "drops nothing; for the first layer's input use input_dropout, for the output "
            "StructuredDropout or MaskedLinear behind the layer",
            stacklevel=4,
        )
