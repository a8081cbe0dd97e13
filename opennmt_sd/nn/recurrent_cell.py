"""One step of a recurrent cell with structured dropout, whatever the cell: what all of them share.

Inside, a state is a tuple of tensors ``[B, H]``: (h, c) of an LSTM, (h,) of a GRU.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.dropout import DropoutPattern, Keep
from opennmt_sd.nn.base import PatternAttribute, Structured
from opennmt_sd.nn.precision import autocasts
from opennmt_sd.ops.checks import check_keep

State = tuple[Tensor, ...]


class RecurrentCell(Structured, nn.RNNCellBase):
    """Mixin before ``nn.LSTMCell`` and its like.

    Attributes:
        gates: rows of a weight, in units of H.
        states: the tensors of a state.
        masks_state: whether torch's own step takes what is kept of h in its place.
    """

    gates: ClassVar[int]
    states: ClassVar[int]
    masks_state: ClassVar[bool]

    input_dropout = PatternAttribute()
    recurrent_dropout = PatternAttribute()

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        input_dropout: DropoutPattern | float | None = None,
        recurrent_dropout: DropoutPattern | float | None = None,
    ) -> None:
        # torch's own
        super().__init__(input_size, hidden_size, bias, device=device, dtype=dtype)  # type: ignore[call-arg]
        self.input_dropout = DropoutPattern.of(input_dropout)
        self.recurrent_dropout = DropoutPattern.of(recurrent_dropout)

    def _torch_step(self, input: Tensor, state: State | None) -> State:
        """Take torch's own step."""
        raise NotImplementedError

    def _dense_step(self, x: Tensor, state: State, state_keep: Keep | None) -> State:
        """Take a step in plain torch on a given x ``[B, D]``: no kernel would leave anything out of
        the product of what is kept of h."""
        raise NotImplementedError

    def _our_step(
        self, x: Tensor, keep: Keep | None, state: State, state_keep: Keep | None
    ) -> State:
        """Take a step on our ops."""
        raise NotImplementedError

    def _step(
        self, input: Tensor, state: State | None, keep: Keep | None, state_keep: Keep | None
    ) -> State:
        """Take a step, batched or not, with the sets given or drawn."""
        if not self.training or not self._fits(input, state):  # torch refuses what does not
            return self._torch_step(input, state)
        batched = input.dim() == 2
        B = input.shape[0] if batched else 1
        D, H = self.input_size, self.hidden_size
        of_x, of_h = self.input_dropout, self.recurrent_dropout
        dense = not self._leaves_out(
            input, B, of_x.p if keep is None else 0.5, of_h.p if state_keep is None else 0.5
        )
        if dense:
            check_keep(keep, 1, B, D)
            check_keep(state_keep, 1, B, H)
        keep = self._sets(keep, "keep", of_x, B, D, dense)
        state_keep = self._sets(state_keep, "recurrent_keep", of_h, B, H, dense)
        if keep is None and state_keep is None:
            return self._torch_step(input, state)

        x = input if batched else input.unsqueeze(0)  # [B, D]
        if state is None:
            state = (x.new_zeros(B, H),) * self.states
        elif not batched:
            state = tuple(s.unsqueeze(0) for s in state)
        if dense:
            x = x if keep is None else keep.apply_alone(x)
            state = self._dense_step(x, state, state_keep)
        else:
            found = self._our_step(x, keep, state, state_keep)
            state = tuple(s.to(state[-1].dtype) for s in found)  # the last decides, as in torch
        return state if batched else tuple(s.squeeze(0) for s in state)

    def _leaves_out(self, input: Tensor, B: int, of_x: float, of_h: float) -> bool:
        """Return whether a step leaves out what is dropped: where that is little, only if torch's
        own step cannot do the same. Under autocast it does not: autocast knows no cell, and lowers
        its products alone.

        Args:
            of_x, of_h: the shares that are dropped.
        """
        D, H = self.input_size, self.hidden_size
        if of_h and not self.masks_state:
            leaves_out = ops.leaves_out(input)
        else:
            p = (D * of_x + H * of_h) / (D + H)
            leaves_out = ops.leaves_out(input, B * (D + H) * self.gates * H, p)
        return leaves_out and not (autocasts(input) and ops.left_to_torch())

    def _fits(self, input: Tensor, state: State | None) -> bool:
        """Return whether the shapes are those that torch asks for."""
        if input.dim() not in (1, 2) or input.shape[-1] != self.input_size:
            return False
        wanted = (*input.shape[:-1], self.hidden_size)
        return state is None or [s.shape for s in state] == [wanted] * self.states

    def _sets(
        self, given: Keep | None, name: str, pattern: DropoutPattern, B: int, D: int, dense: bool
    ) -> Keep | None:
        if given is not None or not pattern.active:
            return given
        if pattern.time == "fixed":
            raise ValueError(
                f'a cell with time="fixed" needs {name}=: draw the sets once a sequence with '
                "pattern.draw(1, B, D) and pass them at every step"
            )
        return self._draw(pattern, 1, B, D, dense=dense)

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, input_dropout={self.input_dropout}, "
            f"recurrent_dropout={self.recurrent_dropout}"
        )
