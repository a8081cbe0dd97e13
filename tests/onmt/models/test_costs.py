"""What a step of the plugin's encoder and decoders costs and leaves behind."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from opennmt_sd import ops
from opennmt_sd.ops.engines import GATHERED

cells = pytest.mark.parametrize("option", ["input feed", "no input feed", "GRU", "GRU, no feed"])


@cells
def test_a_step_multiplies_less(nmt, option: str, engines: list[str]) -> None:
    """Forward and backward; attention, generator and bridge stay dense."""

    def flops(**rates: float) -> int:
        # Attention is left out, and the vocabulary's layer is not part of the two modules.
        options = {**nmt.OPTIONS[option], "layers": 1, "hidden_size": 64, "word_vec_size": 64}
        model = nmt.build(
            "sd_rnn", "sd_rnn", global_attention="none", **options, **nmt.rated("III", **rates)
        )
        given = nmt.batch()
        with FlopCounterMode(display=False) as counter:
            torch.manual_seed(1)
            model(given["src"], given["tgt"], given["srclen"])[0].sum().backward()
        return counter.get_total_flops()

    rates = {"src_embedding": 0.75, "tgt_embedding": 0.75, "output": 0.75, "recurrent": 0.75}
    # With input feed the first fed step keeps all: T - 1 of T are dropped there.
    for engine in sorted({*engines} - {"dense"}):  # which masks, and multiplies all
        with ops.use(engine):
            assert flops(**rates) / flops() == pytest.approx(0.25, abs=0.05), engine


@pytest.mark.parametrize("dropped", [False, True], ids=["nothing dropped", "all places"])
@cells
def test_nothing_outlives_a_step(nmt, option: str, dropped: bool) -> None:
    """A cycle through the graph would cost memory every batch."""
    rates = nmt.RATES if dropped else {}
    model = nmt.build("sd_brnn", "sd_rnn", **nmt.OPTIONS[option], **nmt.rated("III", **rates))
    made: list[weakref.ref[Tensor]] = []
    for module in (model.decoder, model.encoder.rnn):
        module.register_forward_hook(
            lambda module, args, y: made.extend(
                weakref.ref(t) for t in (y[0] if isinstance(y[0], Tensor) else y[0].data,)
            )
        )
    with ops.use("portable"):
        nmt.loss(model).backward()
    model.decoder.state = {}  # stock's own: what the next chunk would start from
    alive = [ref() for ref in made if ref() is not None]
    assert len(made) >= 2
    assert alive == []


@cells
def test_mixed_precision(nmt, option: str, case: str) -> None:
    model = nmt.build("sd_brnn", "sd_rnn", **nmt.OPTIONS[option], **nmt.rated(case, **nmt.RATES))
    exact = nmt.step(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model.zero_grad()
        torch.manual_seed(3)
        value = nmt.loss(model)
    value.backward()
    assert value.item() == pytest.approx(exact["loss"].item(), rel=1e-2)
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.dtype == torch.float32, name
        assert weight.grad.isfinite().all(), name


@cells
def test_short_and_lonely_sequences(nmt, option: str, case: str) -> None:
    model = nmt.build("sd_brnn", "sd_rnn", **nmt.OPTIONS[option], **nmt.rated(case, **nmt.RATES))
    for length, samples in itertools.product((1, 2), (1, 2)):
        model.zero_grad()
        src, tgt = (torch.full((samples, n, 1), 5) for n in (length, length + 1))
        y, _ = model(src, tgt, torch.full((samples,), length))
        y.sum().backward()
        assert y.shape == (samples, length, nmt.H)
        assert all(p.grad.isfinite().all() for p in model.decoder.rnn.parameters())


@cells
def test_a_generator_of_what_all_steps_keep(
    nmt, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case IV on a GPU: stock's loss, and of its generator all three products are of the kept
    columns alone. Only what is kept can be multiplied: loss, gradients and statistics stay."""
    from onmt.utils.loss import LossCompute

    from opennmt_sd.onmt.loss import StructuredLossCompute

    options = {**nmt.OPTIONS[option], **nmt.rated("IV", output=0.5)}
    model = nmt.build("sd_brnn", "sd_rnn", **options).double()
    compute = StructuredLossCompute.take_over(
        LossCompute.from_opts(model.opt, model, model.vocabs["tgt"])
    )

    def step() -> tuple[int, dict[str, Tensor], list[float], Any]:
        model.zero_grad()
        torch.manual_seed(3)
        given = nmt.batch()
        with ops.use("dense"):
            output, attns = model(given["src"], given["tgt"], given["srclen"])
            with FlopCounterMode(display=False) as counter:
                loss, counts = compute(given, output, attns)
                loss.backward(inputs=[output, *model.generator.parameters()], retain_graph=True)
            model.zero_grad()
            loss.backward()
        grads = {name: weight.grad.clone() for name, weight in model.named_parameters()}
        found = [counts.loss, counts.n_words, counts.n_correct]
        return counter.get_total_flops(), {"loss": loss.detach(), **grads}, found, output.kept

    dense = step()
    for kind in GATHERED:
        monkeypatch.setitem(GATHERED, kind, 0)
    ours = step()
    (kept,) = ours[3].counts
    assert 0 < kept < nmt.H
    V, rows = len(model.vocabs["tgt"]), nmt.B * (nmt.T - 1)
    assert (dense[0], ours[0]) == (6 * rows * V * nmt.H, 6 * rows * V * kept)
    nmt.compare(ours[1], dense[1])
    assert ours[2] == pytest.approx(dense[2])
    assert compute.generator is model.generator
