"""What RNN encoders of every toolkit do in training: one of our RNNs, dropped by a plan."""

from __future__ import annotations

from typing import Any

from opennmt_sd.seq2seq.dropout_mixin import DropoutMixin


class EncoderMixin(DropoutMixin):
    """Follow a plan as a toolkit's RNN encoder, whose ``rnn`` has been converted to one of ours."""

    rnn: Any

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        # In training, packed rows take the quicker kernels where nothing is dropped, too.
        self.rnn.exact = not self.training
        return super().forward(*args, **kwargs)  # type: ignore[misc]

    def apply_plan(self) -> None:
        self.rnn.generator = self.generator
        self.rnn.input_dropout = self.plan.pattern("src_embedding")
        self.rnn.dropout = self.plan.pattern("encoder")
        self.rnn.recurrent_dropout = self.plan.pattern("recurrent")
