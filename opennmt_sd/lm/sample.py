"""Sampling text from a language model."""

from __future__ import annotations

import torch
from torch import Tensor

from opennmt_sd.lm.model import LanguageModel
from opennmt_sd.lm.vocabulary import Vocabulary


@torch.no_grad()
def sample(
    model: LanguageModel,
    vocabulary: Vocabulary,
    *,
    words: int = 100,
    prompt: str = "",
    temperature: float = 1.0,
    top_k: int = 0,
    unknown: bool = False,
    seed: int = 0,
) -> str:
    """Let the model write.

    Args:
        model: left as it was; it runs in evaluation mode.
        vocabulary: the one it was trained with.
        words: how many to write, line ends included; characters, where the vocabulary is of them.
        prompt: words before them, between blanks, or characters; a line feed ends a line.
        temperature: below 1 bolder towards the likely words, above 1 wilder. 0 always takes the
            likeliest.
        top_k: choose among the k likeliest only. Default 0: among all.
        unknown: whether ``<unk>`` may be written. Default False.
        seed: the same seed writes the same text.

    Returns:
        The prompt and what follows, each ``<eos>`` as the end of a line.

    Raises:
        ValueError: an unknown word in the prompt, a number out of range, or a vocabulary of
            another size than the model's.
    """
    _check(model, vocabulary, words, temperature, top_k)
    given = prompt_ids(prompt, vocabulary)
    device = model.embedding.weight.device
    generator = torch.Generator().manual_seed(seed)
    training = model.training
    model.eval()
    try:
        # A text begins where a line has ended.
        ids = torch.tensor([vocabulary.eos, *given], device=device)[:, None]  # [T, 1]
        written = list(given)
        state = None
        for _ in range(words):
            logits, state = model.logits(ids, state)
            scores = logits[-1, 0].float().cpu()  # [V]
            if not unknown and vocabulary.unk is not None:
                scores[vocabulary.unk] = -torch.inf
            word = choose(scores, temperature, top_k, generator)
            written.append(word)
            ids = torch.tensor([[word]], device=device)
    finally:
        model.train(training)
    return vocabulary.text(written)


def _check(
    model: LanguageModel, vocabulary: Vocabulary, words: int, temperature: float, top_k: int
) -> None:
    """Refuse what :func:`sample` cannot do; see there."""
    size = model.embedding.num_embeddings
    if len(vocabulary) != size:
        raise ValueError(f"the model knows {size:,} words, the vocabulary has {len(vocabulary):,}: "
                         "use the corpus it was trained on")  # fmt: skip
    if words < 0:
        raise ValueError(f"words must be 0 or more, got {words}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be 0 or more, got {temperature}")
    if top_k < 0:
        raise ValueError(f"top_k must be 0 (all words) or more, got {top_k}")


def prompt_ids(prompt: str, vocabulary: Vocabulary) -> list[int]:
    """Return the ids of a prompt's words.

    Raises:
        ValueError: a word is not in the vocabulary.
    """
    ids = []
    for number, line in enumerate(prompt.split("\n")):
        ids += [vocabulary.eos] if number else []
        for word in vocabulary.split(line):
            if word not in vocabulary:
                alike = vocabulary.nearest(word)
                hint = f"; it knows {', '.join(map(repr, alike))}" if alike else ""
                raise ValueError(
                    f"the prompt's {word!r} is not among the model's {len(vocabulary):,} "
                    f"{vocabulary.unit}{hint}. Write {vocabulary.unit} as the training text does"
                )
            ids.append(vocabulary.ids[word])
    return ids


def choose(scores: Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    """Draw a word by its logits ``[V]``."""
    if temperature == 0:
        return int(scores.argmax())
    if 0 < top_k < len(scores):
        likeliest = scores.topk(top_k)  # so many, though others be as likely
        scores = torch.full_like(scores, -torch.inf).scatter(0, likeliest.indices, likeliest.values)
    # The largest is zero before it is divided: however low the temperature, it stays finite.
    chances = ((scores.double() - scores.max()) / temperature).softmax(0)
    return int(torch.multinomial(chances, 1, generator=generator))
