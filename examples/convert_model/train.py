"""Train a small LSTM classifier twice, as it is and converted, and compare what comes out.

    python train.py              # some seconds on a CPU

The task: is the sum of a random sequence positive? The model is plain PyTorch; the only line that
is ours is `convert`.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn

from opennmt_sd import convert, revert

T, B, D = 30, 32, 16


class Classifier(nn.Module):
    """Two LSTM layers and a linear one, as anybody would write them."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(D, hidden, num_layers=2, dropout=0.3)
        self.out = nn.Linear(hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, 2]`` of sequences ``[T, B, D]``."""
        _, (h, _) = self.lstm(x)
        return self.out(h[-1])


def batch(seed: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(T, B, D, generator=torch.Generator().manual_seed(seed))
    return x, (x[..., 0].sum(0) > 0).long()


def train(model: nn.Module, updates: int) -> float:
    """Train; return the seconds it took."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    model.train()
    start = time.perf_counter()
    for update in range(updates):
        x, y = batch(update)
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - start


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    """Return the share of right answers on 20 held-out batches."""
    model.eval()
    batches = [batch(10_000 + i) for i in range(20)]
    return sum(float((model(x).argmax(1) == y).float().mean()) for x, y in batches) / len(batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=150)
    parser.add_argument("--hidden", type=int, default=256)
    options = parser.parse_args()
    for name in ("as it is", "converted"):
        torch.manual_seed(1)
        model = Classifier(options.hidden)
        if name == "converted":
            convert(model, recurrent_dropout=0.3)  # every nn.LSTM in it, in place
        seconds = train(model, options.updates)
        print(f"{name:10} {seconds:6.2f} s   accuracy {accuracy(model):.3f}")
    # What knows torch's own types only (TorchScript, exporters) takes the model after this:
    print(f"reverted          accuracy {accuracy(revert(model)):.3f}   {type(model.lstm).__name__}")


if __name__ == "__main__":
    main()
