"""Character encoders: the same as with padding, word by word."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from opennmt_sd.tagger.chars import CharCNN, CharLSTM

WORDS = [np.array(w) for w in ([2, 3, 4], [5], [3, 3, 2, 6, 7, 8], [4, 2], [5, 6])]


@pytest.mark.parametrize("window", [1, 3, 5])
def test_cnn_word_by_word(window: int) -> None:
    torch.manual_seed(0)
    cnn = CharCNN(9, 4, 6, window).double()
    together = cnn(*cnn.layout(WORDS))
    for row, word in zip(together, WORDS):
        x = cnn.embedding(torch.from_numpy(word)).t()[None]  # [1, C, n]
        y = F.conv1d(x, cnn.convolution.weight, cnn.convolution.bias, padding=window // 2)
        torch.testing.assert_close(row, y[0].max(1).values)


def test_cnn_gradients() -> None:
    torch.manual_seed(0)
    cnn = CharCNN(9, 3, 4).double()
    inputs = cnn.layout(WORDS)
    # Without the embedding: the gradient of its padding is withheld on purpose.
    filters = tuple(cnn.convolution.parameters())
    assert torch.autograd.gradcheck(lambda *_: cnn(*inputs), filters)
    cnn(*inputs).sum().backward()
    assert not cnn.embedding.weight.grad[0].any()
    assert cnn.embedding.weight.grad[2:].any(1).all()


def test_lstm_word_by_word() -> None:
    torch.manual_seed(0)
    encoder = CharLSTM(9, 4, 6).double()
    together = encoder(*encoder.layout(WORDS))
    for row, word in zip(together, WORDS):
        _, (h, _) = encoder.lstm(encoder.embedding(torch.from_numpy(word)))
        torch.testing.assert_close(row, h.flatten())


@pytest.mark.parametrize("encoder", [CharCNN(9, 4, 6), CharLSTM(9, 4, 6)])
def test_no_work_on_padding(encoder: CharCNN | CharLSTM) -> None:
    line, *_ = encoder.layout(WORDS)
    assert (line != 0).sum() == sum(map(len, WORDS))
    assert len(line) <= sum(map(len, WORDS)) + len(WORDS) - 1  # at most a gap between two words


@pytest.mark.parametrize("encoder", [CharCNN(9, 4, 6, dropout=0.5), CharLSTM(9, 4, 6, 0.5)])
def test_dropout_in_training_only(encoder: CharCNN | CharLSTM) -> None:
    inputs = encoder.layout(WORDS)
    assert not torch.equal(encoder(*inputs), encoder(*inputs))
    encoder.eval()
    assert torch.equal(encoder(*inputs), encoder(*inputs))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="must be odd, got 2: it is centred on a character"):
        CharCNN(9, window=2)
    with pytest.raises(ValueError, match="must be even, got 5: it has two directions"):
        CharLSTM(9, width=5)


@pytest.mark.parametrize("words", [WORDS, [np.array([2, 3]), np.array([4, 3])], [np.array([5])]])
@pytest.mark.parametrize("training", [True, False])
def test_lstm_under_autocast(words: list[np.ndarray], training: bool) -> None:
    """Also of words that are all of one length."""
    encoder = CharLSTM(9, 4, 6).train(training)
    inputs = encoder.layout(words)
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(*inputs)
    torch.testing.assert_close(found.float(), encoder(*inputs), atol=0.03, rtol=0.03)
