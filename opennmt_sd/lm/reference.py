"""The same language model in plain PyTorch: what a user would write otherwise.

The tests compare with it, and the benchmark measures against it. Its parameters have the names
and shapes of :class:`opennmt_sd.lm.model.LanguageModel`'s, so that ``load_state_dict`` goes both
ways (DropConnect aside, which torch's layers do not have). It drops as ``nn.Dropout`` and
those layers do: Case I, and nothing on the recurrent state.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from opennmt_sd.lm.model import Output, State, initialise, stacks_of, widths_of
from opennmt_sd.nn import by_name


class ReferenceLanguageModel(nn.Module):
    """Plain PyTorch.

    Args:
        vocabulary, embedding, hidden, layers, cell, tied, init: as in ``LanguageModel``.
        nr, fc: rates of ordinary dropout on the input of every layer and on the output.

    Raises:
        ValueError: widths that do not fit, an unknown cell.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        embedding: int = 650,
        hidden: int | Sequence[int] = 650,
        layers: int | None = None,
        cell: str = "lstm",
        nr: float = 0.0,
        fc: float = 0.0,
        tied: bool = False,
        init: float | None = 0.05,
    ) -> None:
        super().__init__()
        widths = widths_of(embedding, hidden, layers)
        layer = by_name.TORCHS[by_name.check_cell(cell)]
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.dropout = nn.Dropout(nr)
        self.stacks = nn.ModuleList(
            layer(D, H, num_layers=count, dropout=nr if count > 1 else 0.0)
            for D, H, count in stacks_of(widths)
        )
        self.output_dropout = nn.Dropout(fc)
        self.decoder = nn.Linear(widths[-1], vocabulary)
        if tied:
            self.decoder.weight = self.embedding.weight
        initialise(self, init)

    def forward(
        self, ids: Tensor, targets: Tensor, state: State | None = None, *, scale: float = 1.0
    ) -> Output:
        x = self.embedding(ids)
        finals = []
        for k, stack in enumerate(self.stacks):
            given = None if state is None else state[k]
            x, final = by_name.run(stack, self.dropout(x), given)
            finals.append(tuple(s.detach() for s in final))
        logits = self.decoder(self.output_dropout(x))  # [T, B, V]
        nll = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return Output(scale * nll, nll.detach() * targets.numel(), tuple(finals))
