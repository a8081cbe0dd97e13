"""Writing text with a model."""

from __future__ import annotations

import pytest
import torch

from opennmt_sd.lm import Corpus, LanguageModel, sample
from opennmt_sd.lm.sample import choose


@pytest.fixture
def model(corpus: Corpus) -> LanguageModel:
    model = LanguageModel(len(corpus.vocabulary), embedding=8, hidden=8, nr=0.5, fc=0.5)
    with torch.no_grad():  # make it prefer <unk>, then "cat"
        model.decoder.bias[corpus.vocabulary.ids["<unk>"]] = 5
        model.decoder.bias[corpus.vocabulary.ids["cat"]] = 3
    return model


def test_the_same_seed_writes_the_same(model: LanguageModel, corpus: Corpus) -> None:
    texts = [sample(model, corpus.vocabulary, words=30, temperature=3.0, seed=s) for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0].replace("\n", " <eos> ").split()) == 30


def test_it_leaves_no_trace(model: LanguageModel, corpus: Corpus) -> None:
    model.train()
    before = torch.get_rng_state()
    sample(model, corpus.vocabulary, words=3)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_prompt_and_line_ends(model: LanguageModel, corpus: Corpus) -> None:
    text = sample(model, corpus.vocabulary, words=2, temperature=0, prompt="the dog\na ")
    assert text == "the dog\na cat cat"
    assert sample(model, corpus.vocabulary, words=0) == ""


def test_unknown_words_are_written_on_request(model: LanguageModel, corpus: Corpus) -> None:
    for unknown, word in ((False, "cat"), (True, "<unk>")):
        text = sample(model, corpus.vocabulary, words=1, temperature=0, unknown=unknown)
        assert text == word


def test_the_state_goes_from_word_to_word(corpus: Corpus) -> None:
    model = LanguageModel(len(corpus.vocabulary), embedding=8, hidden=8, init=2.0)
    text = sample(model, corpus.vocabulary, words=12, temperature=0, unknown=True, prompt="the cat")
    ids = [corpus.vocabulary.eos] + [
        corpus.vocabulary.ids[w] for w in text.replace("\n", " <eos> ").split()
    ]
    logits, _ = model.eval().logits(torch.tensor(ids)[:, None])
    assert logits[2:-1, 0].argmax(1).tolist() == ids[3:]  # what the whole text at once predicts


def test_choice() -> None:
    scores = torch.tensor([0.0, 2.0, 1.0, -torch.inf])
    generator = torch.Generator().manual_seed(1)

    def shares(temperature: float, top_k: int) -> list[float]:
        drawn = [choose(scores, temperature, top_k, generator) for _ in range(2000)]
        return [drawn.count(i) / 2000 for i in range(4)]

    assert choose(scores, 0, 0, generator) == 1
    for temperature in (0.5, 2.0):
        want = (scores / temperature).softmax(0).tolist()
        assert shares(temperature, 0) == pytest.approx(want, abs=0.05)  # 4.5 standard errors
    assert shares(1.0, 1) == [0, 1, 0, 0]
    assert shares(1e-40, 0) == shares(1e-300, 2) == [0, 1, 0, 0]
    assert len({choose(torch.zeros(5), 1.0, 2, generator) for _ in range(200)}) == 2
    top2 = torch.tensor([2.0, 1.0]).softmax(0).tolist()
    assert shares(1.0, 2) == pytest.approx([0, *top2, 0], abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prompt": "the catt sat"}, "the prompt's 'catt' is not among the model's 10 words; it "
         "knows 'cat'. Write words as the training text does"),
        ({"prompt": "zzz"}, "the prompt's 'zzz' is not among the model's 10 words. Write words as "
         "the training text does"),
        ({"words": -1}, "words must be 0 or more, got -1"),
        ({"temperature": -0.5}, "temperature must be 0 or more, got -0.5"),
        ({"temperature": float("nan")}, "temperature must be 0 or more, got nan"),
        ({"top_k": -1}, "top_k must be 0 (all words) or more, got -1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_refusals(model: LanguageModel, corpus: Corpus, arguments, said: str) -> None:
    with pytest.raises(ValueError) as error:
        sample(model, corpus.vocabulary, **arguments)
    assert str(error.value) == said


def test_a_vocabulary_of_another_size(corpus: Corpus) -> None:
    with pytest.raises(ValueError) as error:
        sample(LanguageModel(7, embedding=2, hidden=2), corpus.vocabulary)
    assert str(error.value) == (
        "the model knows 7 words, the vocabulary has 10: use the corpus it was trained on"
    )
