"""What the plugin's encoder and decoders draw, where, how often, and by which generator."""

from __future__ import annotations

import pytest
import torch

from opennmt_sd import DropoutPattern, StructuredGRU, StructuredLSTM
from opennmt_sd.dropout import Keep

B, S, T, H, E = 5, 9, 7, 12, 10
feeds = pytest.mark.parametrize("option", ["input feed", "no input feed"])
encoders = pytest.mark.parametrize("encoder", ["rnn", "brnn"])


@feeds
@encoders
def test_places_and_draws(
    nmt, option: str, encoder: str, case: str, drawn: dict[float, list[Keep]]
) -> None:
    """What is drawn in one step: where, how often, and for how many steps and units."""
    model = nmt.build(
        f"sd_{encoder}", "sd_rnn", **nmt.OPTIONS[option], **nmt.rated(case, **nmt.RATES)
    )
    nmt.step(model)
    directions = 1 + (encoder == "brnn")
    half = H // directions
    fixed = nmt.CASES[case][1] == "fixed"

    def draws(place: str) -> list[tuple[int, int]]:
        return [(k.steps, k.width) for k in drawn.pop(nmt.RATES[place])]

    def steps(n: int) -> int:
        return 1 if fixed else n

    last = T - 1  # the last word of a target is only ever predicted, never read
    recurrent = draws("recurrent")
    assert recurrent[: 2 * directions] == [(steps(S), half)] * 2 * directions, "of the encoder"
    assert recurrent[2 * directions :] == [(steps(last), H)] * 2, "of the decoder"
    assert draws("src_embedding") == [(steps(S), E)]
    assert draws("encoder") == [(steps(S), H)]
    assert draws("tgt_embedding") == [(steps(last), E)]
    assert draws("decoder") == [(steps(last), H)]
    apart = case in nmt.STAGGERED and nmt.OPTIONS[option]["input_feed"]
    assert draws("output") == [(steps(last), H)] * (2 if apart else 1), "what is fed by itself"
    assert not drawn, "and nothing else"


@feeds
def test_evaluation_draws_nothing(nmt, option: str, drawn: dict[float, list[Keep]]) -> None:
    model = nmt.build(
        "sd_brnn", "sd_rnn", dropout=0.5, **nmt.OPTIONS[option], **nmt.rated("III", **nmt.RATES)
    )
    nmt.loss(model.eval())
    assert not drawn


@feeds
def test_only_dropout_drops(nmt, option: str, drawn: dict[float, list[Keep]]) -> None:
    """``dropout`` alone reaches every place stock drops at; the state has to be asked for."""
    nmt.step(
        nmt.build("sd_brnn", "sd_rnn", dropout=0.3, sd_output_sets="by_step", **nmt.OPTIONS[option])
    )
    assert set(drawn) == {0.3}
    assert len(drawn[0.3]) == 5  # the places but the recurrent one, with 2 layers a side


@feeds
def test_a_schedule_reaches_what_follows(nmt, option: str, drawn: dict[float, list[Keep]]) -> None:
    """Also places that began at 0, which stock never turns on; rates of their own stay."""
    own = {"sd_output_dropout": 0.4, "sd_recurrent_dropout": 0.45, "sd_output_sets": "by_step"}
    model = nmt.build("sd_brnn", "sd_rnn", dropout=0.0, **nmt.OPTIONS[option], **own)
    nmt.step(model)
    assert set(drawn) == {0.4, 0.45}
    for rate in (0.2, 0.1):
        drawn.clear()
        model.update_dropout(rate, None)
        nmt.step(model)
        assert {p: len(keeps) for p, keeps in drawn.items()} == {rate: 4, 0.4: 1, 0.45: 6}
    drawn.clear()
    model.update_dropout(0.0, None)
    nmt.step(model)
    assert set(drawn) == {0.4, 0.45}


@feeds
def test_stocks_own_dropout_is_off(nmt, option: str) -> None:
    """Else a unit would be dropped twice."""
    model = nmt.build("sd_brnn", "sd_rnn", dropout=0.5, **nmt.OPTIONS[option])
    for side in (model.encoder, model.decoder):
        assert side.embeddings.dropout_p == 0
        ids = nmt.batch()["src"]
        assert torch.equal(side.embeddings(ids), side.embeddings(ids))
    model.update_dropout(0.4, None)
    assert model.encoder.embeddings.dropout_p == 0
    assert model.decoder.embeddings.dropout_p == 0


@pytest.mark.parametrize(("cell", "kind"), [("LSTM", StructuredLSTM), ("GRU", StructuredGRU)])
def test_the_rnns_are_structured(nmt, cell: str, kind: type) -> None:
    own = {"dropout": 0.3, "input_feed": 0, "sd_recurrent_dropout": 0.1}
    model = nmt.build("sd_brnn", "sd_rnn", rnn_type=cell, **own)
    for rnn in (model.encoder.rnn, model.decoder.rnn):
        assert type(rnn) is kind
        assert rnn.dropout == DropoutPattern(0.3, count="exact")
        assert rnn.recurrent_dropout == DropoutPattern(0.1, count="exact")
    assert model.encoder.rnn.input_dropout == DropoutPattern(0.3, count="exact")


@feeds
def test_a_generator_of_its_own(nmt, option: str) -> None:
    """All draws come from it, as on the ranks of a data-parallel run."""
    model = nmt.build("sd_brnn", "sd_rnn", **nmt.OPTIONS[option], **nmt.rated("III", **nmt.RATES))
    generator = torch.Generator()
    for side in (model.encoder, model.decoder):
        side.generator = generator
        side.apply_plan()
    results = []
    for torch_seed in (1, 2):
        generator.manual_seed(5)
        results.append(nmt.step(model, seed=torch_seed))
    nmt.compare(results[1], results[0], rtol=0, atol=0)


@feeds
def test_a_batch_shares_what_it_drops(nmt, option: str, drawn: dict[float, list[Keep]]) -> None:
    """Structured: every sample lacks the same units of the output at a step."""
    output = nmt.RATES["output"]
    model = nmt.build("sd_rnn", "sd_rnn", **nmt.OPTIONS[option], **nmt.rated("III", output=output))
    given = nmt.batch(padded=False)
    y, _ = model(given["src"], given["tgt"], given["srclen"])  # [B, T - 1, H]
    (keep,) = drawn[output]
    assert torch.equal((y == 0).transpose(0, 1), ~keep.mask().expand(T - 1, B, H))
