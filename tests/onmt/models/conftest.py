"""Translators as stock builds them, with its parts or ours, and what is done with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.dropout import Keep
from opennmt_sd.ops.cpu import native
from opennmt_sd.ops.engines import ENGINES

SIZE = {"hidden_size": 12, "word_vec_size": 10, "layers": 2}
B, S, T, H, E = 5, 9, 7, 12, 10
WORDS = ["<unk>", "<blank>", "<s>", "</s>", *(f"w{i}" for i in range(60))]

# What an RNN translator may be built of; every option that changes the decoder's steps is in here.
OPTIONS: dict[str, dict[str, Any]] = {
    "input feed": {"input_feed": 1},
    "no input feed": {"input_feed": 0},
    "dot": {"input_feed": 1, "global_attention": "dot"},
    "mlp, coverage, gate both": {
        "input_feed": 1, "global_attention": "mlp", "coverage_attn": True, "context_gate": "both",
    },
    "gate source, bridge, no feed": {"input_feed": 0, "context_gate": "source", "bridge": True},
    "gate target": {"input_feed": 1, "context_gate": "target"},
    "no attention": {"input_feed": 1, "global_attention": "none"},
    "one layer": {"input_feed": 1, "layers": 1},
    "one layer, no feed": {"input_feed": 0, "layers": 1, "global_attention": "dot"},
    "three layers": {"input_feed": 1, "layers": 3},
    "fewer decoder layers": {"input_feed": 1, "layers": -1, "enc_layers": 3, "dec_layers": 2},
    "GRU": {"input_feed": 1, "rnn_type": "GRU"},
    "GRU, no feed": {"input_feed": 0, "rnn_type": "GRU"},
    "GRU, mlp, coverage, gate both, bridge, fewer decoder layers": {
        "input_feed": 1, "rnn_type": "GRU", "global_attention": "mlp", "coverage_attn": True,
        "context_gate": "both", "bridge": True, "layers": -1, "enc_layers": 3, "dec_layers": 2,
    },
}  # fmt: skip
# Space, time, count, and what shares the output's sets.
CASES = {
    "I": ("random", "random", "bernoulli", "staggered"),
    "II": ("random", "fixed", "bernoulli", "staggered"),
    "III": ("structured", "random", "bernoulli", "by_step"),
    "IV": ("structured", "fixed", "exact", "staggered"),
    "III, staggered": ("structured", "random", "bernoulli", "staggered"),
    "the default": ("structured", "random", "exact", "staggered"),
}
STAGGERED = ("III, staggered", "the default")
# A rate for each place tells the draws apart.
RATES = {"src_embedding": 0.2, "encoder": 0.25, "tgt_embedding": 0.3, "decoder": 0.35,
         "output": 0.4, "recurrent": 0.45}  # fmt: skip


@pytest.fixture(autouse=True)
def automatic_engine() -> Iterator[None]:
    ops.use("auto")
    yield
    ops.use("auto")


@pytest.fixture
def engines() -> list[str]:
    """Each engine but naive, which is what they are compared with."""
    return sorted(set(ENGINES) - {"naive"} - ({"cpu"} if native() is None else set()))


@pytest.fixture(params=OPTIONS)
def option(request: pytest.FixtureRequest) -> str:
    """Each of OPTIONS by its name."""
    return request.param


@pytest.fixture(params=[name for name, options in OPTIONS.items() if options["input_feed"]])
def fed_option(request: pytest.FixtureRequest) -> str:
    """Each of them with input feed."""
    return request.param


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    """Each of CASES by its name."""
    return request.param


class Translators:
    """Builds models, every weight drawn as ``param_init`` does it; trains them for a step."""

    B, S, T, H, E = B, S, T, H, E
    OPTIONS, CASES, STAGGERED, RATES = OPTIONS, CASES, STAGGERED, RATES

    def __init__(self) -> None:
        from onmt import opts
        from onmt.inputters.inputter import dict_to_vocabs
        from onmt.utils.parse import ArgumentParser

        self.parser = ArgumentParser()
        opts.train_opts(self.parser)

        self.vocabs = dict_to_vocabs(
            {"src": WORDS, "tgt": WORDS, "data_task": "seq2seq", "decoder_start_token": "<s>"}
        )

    def build(self, encoder: str, decoder: str, seed: int = 0, **options: Any) -> Any:
        from onmt.model_builder import build_base_model
        from onmt.utils.parse import ArgumentParser

        given = ["-data", "{}", "-src_vocab", "none", "-save_model", "none"]
        for name, value in {"encoder_type": encoder, "decoder_type": decoder, "dropout": 0.0,
                            **SIZE, **options}.items():  # fmt: skip
            given += [f"-{name}"] if value is True else [f"-{name}", str(value)]
        opt, _ = self.parser.parse_known_args(given)
        ArgumentParser.update_model_opts(opt)
        ArgumentParser.validate_model_opts(opt)
        torch.manual_seed(seed)
        model = build_base_model(opt, self.vocabs)
        for weight in model.parameters():
            nn.init.uniform_(weight, -0.1, 0.1)
        model.opt, model.vocabs = opt, self.vocabs
        return model.train()

    def rated(self, case: str, **rates: float) -> dict[str, Any]:
        """Options: a case and rates for places."""
        space, time, count, output = CASES[case]
        return {"sd_space": space, "sd_time": time, "sd_count": count, "sd_output_sets": output,
                **{f"sd_{place}_dropout": p for place, p in rates.items()}}  # fmt: skip

    def batch(self, padded: bool = True) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(1)
        src = torch.randint(4, 64, (B, S, 1), generator=g)
        tgt = torch.randint(4, 64, (B, T, 1), generator=g)
        if padded:
            tgt[[1, 3], -1] = tgt[2, -3:] = 1
        return {"src": src, "tgt": tgt, "srclen": torch.tensor([9, 3, 9, 1, 5])}

    def loss(self, model: Any) -> Tensor:
        """Through stock's own loss: generator, coverage loss and all."""
        from onmt.utils.loss import LossCompute

        given = self.batch()
        compute = LossCompute.from_opts(model.opt, model, model.vocabs["tgt"])
        compute.__class__ = LossCompute  # ours, if a test before this one has built a whole model
        outputs, attentions = model(given["src"], given["tgt"], given["srclen"])
        return compute(given, outputs, attentions)[0]

    def step(self, model: Any, seed: int = 3) -> dict[str, Tensor]:
        """The loss and the gradient of every weight."""
        model.zero_grad()
        torch.manual_seed(seed)
        value = self.loss(model)
        value.backward()
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        return {"loss": value.detach(), **grads}

    def compare(self, got: dict[str, Tensor], want: dict[str, Tensor], **tolerance: float) -> None:
        assert got.keys() == want.keys()
        for name, expected in want.items():
            torch.testing.assert_close(
                got[name], expected, msg=lambda m, n=name: f"{n}: {m}", **tolerance
            )

    def masks(self, keep: Keep | None, T: int = T) -> Tensor:
        """``[T, B, D]`` of 0 and the scale."""
        return keep.mask().expand(T, B, -1).double() * keep.scale

    def output_masks(self, case: str, keep: Keep) -> Tensor:
        """The same of the decoder's output, where what was drawn may be staggered."""
        if case not in STAGGERED:
            return self.masks(keep)
        (sets,) = keep.mask().double().mul(keep.scale).unbind(1)
        S = len(sets)
        steps = [[sets[(t + b * S // B) % S] for b in range(B)] for t in range(T)]
        return torch.stack([torch.stack(samples) for samples in steps])


@pytest.fixture(scope="session")
def nmt() -> Translators:
    pytest.importorskip("onmt", reason="OpenNMT-py is not installed")
    from opennmt_sd.onmt import register

    register()
    return Translators()
