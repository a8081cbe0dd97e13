"""A drop-in for nn.LSTM with structured dropout between layers, on the input and on the state."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from opennmt_sd import ops
from opennmt_sd.dropout import DropoutPattern, Keep, KeepSets
from opennmt_sd.nn.base import PatternAttribute, Structured
from opennmt_sd.ops.checks import check_keep

State = tuple[Tensor, Tensor]


class StructuredLSTM(Structured, nn.LSTM):
    """``nn.LSTM`` whose dropped units are left out of the products.

    Parameters, their names and shapes, and the positional arguments are ``nn.LSTM``'s. In
    evaluation, or with nothing to drop, it runs torch's own computation.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, bidirectional, device, dtype: as
            in ``nn.LSTM``.
        dropout: pattern, or Case III rate, between layers. Default 0.
        proj_size: not supported; must be 0.
        input_dropout: pattern or rate on the first layer's input. Default none. Keyword only.
        recurrent_dropout: pattern or rate on h before ``weight_hh``, in every layer, one draw a
            direction; set t acts on the state that enters position t. Default none. Keyword only.

    Both directions of a layer read one dropped input. The h and c that are returned are undropped.
    ``time="fixed"`` means one draw a forward call.

    Attributes:
        exact: whether what drops nothing is torch's own computation, bit for bit, double backward
            included. Default True. False: packed sequences run on the CPU's native kernels then
            too; these are quicker (2x to 4x), and equal torch's within rounding.

    Raises:
        ValueError: a rate outside [0, 1). NotImplementedError: ``proj_size``, ``jit.script``.
        RuntimeError: double backward outside the naive engine.

    Source: Sarma et al., NeurIPS 2021, section 3 (NR and RH).

    Example::

        lstm = StructuredLSTM(650, 650, 2, dropout=0.5, input_dropout=0.5, recurrent_dropout=0.5)
        out, (h, c) = lstm(x)  # x [T, B, 650]
    """

    input_dropout = PatternAttribute()
    dropout = PatternAttribute()
    recurrent_dropout = PatternAttribute()
    exact = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: DropoutPattern | float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        input_dropout: DropoutPattern | float | None = None,
        recurrent_dropout: DropoutPattern | float | None = None,
    ) -> None:
        refuse_proj_size(proj_size)
        patterns = {
            "dropout": DropoutPattern.of(dropout),
            "input_dropout": DropoutPattern.of(input_dropout),
            "recurrent_dropout": DropoutPattern.of(recurrent_dropout),
        }
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, 0.0, bidirectional, 0,
            device, dtype,
        )  # fmt: skip
        for name, pattern in patterns.items():
            setattr(self, name, pattern)

    def forward(  # type: ignore[override]
        self,
        input: Tensor | PackedSequence,
        hx: State | None = None,
        *,
        input_keep: Keep | None = None,
    ) -> tuple[Tensor | PackedSequence, State]:
        """As ``nn.LSTM.forward``: also packed, unbatched, with or without an initial state.

        Args:
            input: ``[T, B, D]`` (``[B, T, D]`` with ``batch_first``), ``[T, D]``, or packed; raw.
            hx: h_0 and c_0, ``[layers * directions, B, H]`` each; default zeros.
            input_keep: keep sets for the first layer's input in training, instead of a draw.

        Returns:
            The output in the input's layout, and (h_n, c_n).
        """
        if isinstance(input, PackedSequence):
            x, sizes, order, back = input
            self.check_input(x, sizes)
            hx = self._state(int(sizes[0]), hx, order, x)
            x, state = self._run(x, hx, sizes, input_keep)
            return PackedSequence(x, sizes, order, back), self.permute_hidden(state, back)

        if input.dim() not in (2, 3):
            raise ValueError(
                f"input must be 3-D, or 2-D (unbatched), or packed; got {list(input.shape)}"
            )
        unbatched = input.dim() == 2
        batch_first = self.batch_first and not unbatched
        x = input.unsqueeze(1) if unbatched else input.transpose(0, 1) if batch_first else input
        if unbatched and hx is not None:
            if hx[0].dim() != 2 or hx[1].dim() != 2:
                raise RuntimeError(
                    f"an unbatched 2-D input needs a 2-D hx, got ({hx[0].dim()}-D, {hx[1].dim()}-D)"
                )
            hx = (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
        elif hx is not None and (hx[0].dim() != 3 or hx[1].dim() != 3):
            raise RuntimeError(
                f"a batched 3-D input needs a 3-D hx, got ({hx[0].dim()}-D, {hx[1].dim()}-D)"
            )
        self.check_input(x, None)
        if not x.shape[0]:
            raise RuntimeError("an LSTM needs at least one step, got a sequence of length 0")
        hx = self._state(x.shape[1], hx, None, x)
        x, (h, c) = self._run(x, hx, None, input_keep)  # [T, B, directions * H]
        if unbatched:
            return x.squeeze(1), (h.squeeze(1), c.squeeze(1))
        return x.transpose(0, 1) if batch_first else x, (h, c)

    def _state(self, B: int, hx: State | None, order: Tensor | None, x: Tensor) -> State:
        """The initial state in the batch's inner order, checked as nn.LSTM checks it."""
        rows = self.num_layers * (2 if self.bidirectional else 1)
        if hx is None:
            zeros = x.new_zeros(rows, B, self.hidden_size)
            hx = (zeros, zeros)
        else:
            hx = self.permute_hidden(hx, order)
        expected = (rows, B, self.hidden_size)
        self.check_hidden_size(hx[0], expected, "Expected hidden[0] size {}, got {}")
        self.check_hidden_size(hx[1], expected, "Expected hidden[1] size {}, got {}")
        return hx

    def _run(
        self, x: Tensor, hx: State, sizes: Tensor | None, input_keep: Keep | None
    ) -> tuple[Tensor, State]:
        """All layers, on x time first or packed, with a given state."""
        weights = [self._weights(k) for k in range(self.num_layers)]
        input_keep = input_keep if self.training else None
        drops = self.training and (
            input_keep is not None
            or self.input_dropout.active
            or self.recurrent_dropout.active
            or (self.dropout.active and self.num_layers > 1)
        )
        torchs = self.exact or not self._packed_kernels(x, sizes)
        if not drops and torchs and ops.forced() is None:
            flat = [w for layer in weights for direction in layer for w in direction]
            return self._torch_lstm(x, hx, flat, self.num_layers, sizes)

        T, B = (x.shape[0], x.shape[1]) if sizes is None else (len(sizes), hx[0].shape[1])
        check_keep(input_keep, T, B, self.input_size)
        finals: list[State] = []
        for k, directions in enumerate(weights):
            pattern = self.dropout if k else self.input_dropout
            given = None if k else input_keep
            count = len(directions)
            state = hx[0][k * count : (k + 1) * count], hx[1][k * count : (k + 1) * count]
            if self._ours(x, pattern, given, sizes):
                keep = self._draw(pattern, T, B, x.shape[-1]) if given is None else given
                x, final = self._layer(x, keep, state, directions, sizes, T, B)
            else:  # nothing that a smaller product would serve: torch's own layer, one call
                if given is not None:
                    x = given.apply(x, sizes)
                elif self.training and pattern.active:
                    x = pattern.draw_mask(T, B, x.shape[-1], self.generator).apply(x, sizes)
                flat = [w for direction in directions for w in direction]
                x, final = self._torch_lstm(x, state, flat, 1, sizes)
            finals.append(final)
        if len(finals) == 1:  # even of one tensor, cat would make a copy
            return x, finals[0]
        h, c = (torch.cat(states) for states in zip(*finals))
        return x, (h, c)

    def _ours(
        self, x: Tensor, pattern: DropoutPattern, given: Keep | None, sizes: Tensor | None
    ) -> bool:
        """Whether a layer on x runs on our ops, and not as torch's own on a masked input."""
        if (self.training and self.recurrent_dropout.active) or ops.forced() is not None:
            return True
        drawn = self.training and pattern.active and pattern.structured
        sets = isinstance(given, KeepSets) if given is not None else drawn
        compacts = sets and ops.worth_compacting(x, 4 * self.hidden_size)
        return compacts or self._packed_kernels(x, sizes)

    def _layer(
        self, x: Tensor, keep: Keep | None, hx: State, directions: list[list[Tensor]],
        sizes: Tensor | None, T: int, B: int,
    ) -> tuple[Tensor, State]:  # fmt: skip
        if x.device.type != "cpu":
            _tell_of_loop(x.device.type)
        outputs, hs, cs = [], [], []
        for d, (weight_ih, weight_hh, *biases) in enumerate(directions):
            bias = biases[0] + biases[1] if biases else None
            state_keep = self._draw(self.recurrent_dropout, T, B, self.hidden_size)
            y, h, c = ops.lstm_layer(
                x, keep, weight_ih, bias, weight_hh, hx[0][d], hx[1][d], state_keep,
                batch_sizes=sizes, reverse=d == 1,
            )  # fmt: skip
            outputs.append(y)
            hs.append(h)
            cs.append(c)
        # Even of one tensor, cat would make a copy.
        y = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
        return y, (torch.stack(hs), torch.stack(cs))

    @staticmethod
    def _packed_kernels(x: Tensor, sizes: Tensor | None) -> bool:
        """Whether x is packed and has native kernels: torch runs packed rows step by step."""
        return sizes is not None and ops.has_kernels(x)

    def _draw(self, pattern: DropoutPattern, T: int, B: int, D: int) -> Keep | None:
        if not (self.training and pattern.active):
            return None
        return pattern.draw(T, B, D, self.generator)

    def _weights(self, layer: int) -> list[list[Tensor]]:
        """Of each direction: weight_ih, weight_hh and, with bias, bias_ih and bias_hh.

        Read as attributes at every call, so that parametrizations take effect.
        """
        names = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if self.bias else [])]
        suffixes = ["", "_reverse"] if self.bidirectional else [""]
        return [[getattr(self, f"{n}_l{layer}{s}") for n in names] for s in suffixes]

    def _torch_lstm(
        self, x: Tensor, hx: State, weights: list[Tensor], layers: int, sizes: Tensor | None
    ) -> tuple[Tensor, State]:
        """torch's own dense computation, as nn.LSTM calls it."""
        if sizes is None:
            y, h, c = torch._VF.lstm(
                x, hx, weights, self.bias, layers, 0.0, self.training, self.bidirectional, False
            )
        else:
            y, h, c = torch._VF.lstm(
                x, sizes, hx, weights, self.bias, layers, 0.0, self.training, self.bidirectional
            )
        return y, (h, c)

    def extra_repr(self) -> str:
        patterns = {
            name: getattr(self, name) for name in ("input_dropout", "dropout", "recurrent_dropout")
        }
        shape = [f"{self.input_size}, {self.hidden_size}"]
        shape += [f"num_layers={self.num_layers}"] if self.num_layers != 1 else []
        shape += [f"{n}={getattr(self, n)}" for n in ("batch_first", "bidirectional") if
                  getattr(self, n)]  # fmt: skip
        shape += ["bias=False"] if not self.bias else []
        return ", ".join(shape + [f"{n}={p}" for n, p in patterns.items() if p.active])


@functools.cache
def _tell_of_loop(device: str) -> None:
    warnings.warn(
        f"recurrent dropout runs step by step on {device}: there are no kernels for it yet. "
        "Without it (recurrent_dropout=None) each layer is one fused call",
        RuntimeWarning,
        stacklevel=2,
    )


def refuse_proj_size(proj_size: Any) -> None:
    if proj_size:
        raise NotImplementedError(
            f"proj_size={proj_size} is not supported: use proj_size=0 and an nn.Linear behind the "
            "LSTM, or keep nn.LSTM for this layer"
        )
