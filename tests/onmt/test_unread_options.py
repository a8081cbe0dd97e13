"""An option that onmt_train knows and does not read where it stands is reported, with any type."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import pytest

from opennmt_sd.onmt.unread_options import unread_options

Parse = Callable[..., Namespace]

FILTER = {"transforms": ["filtertoolong"]}
LONG = (
    "src_seq_length 50 does nothing: the transform filtertoolong alone reads it: add one to the "
    "transforms of any corpus, or remove it"
)
SUBWORDS = (
    "src_subword_model m does nothing: the transforms bpe, onmt_tokenize, sentencepiece alone read "
    "it: add one to the transforms of any corpus, or remove it"
)


@pytest.mark.parametrize(
    ("yaml", "corpora", "texts"),
    [
        ("src_seq_length: 50", {"c": FILTER, "valid": {"transforms": []}}, []),
        ("src_seq_length: 50", {"c": {"transforms": ["prefix"]}}, [LONG]),
        ("src_seq_length: 192", {"c": {"transforms": []}}, []),  # the default
        ("src_subword_model: m", {"c": FILTER}, [SUBWORDS]),
        ("src_subword_model: m", {"c": {"transforms": ["bpe"]}}, []),
        (
            "tgt_seq_length_trunc: 9", {"c": FILTER},
            ["tgt_seq_length_trunc 9 does nothing: OpenNMT-py 3 cuts no lines: cut them in the "
             "text, or leave long ones out with transforms: [filtertoolong] and tgt_seq_length"],
        ),
        (
            "src_prefix: de", {"c": {"transforms": ["prefix"]}},
            ["src_prefix de outside data is put to no line, though its words are in the "
             "vocabulary: the transform prefix reads it in a corpus: write it there"],
        ),
        ("src_subword_type: bpe", {"c": {"transforms": ["bart"]}}, []),
        ("", {"c": {"transforms": ["prefix"], "src_prefix": "de", "weight": 2}}, []),
        (
            "", {"c": {"transforms": [], "src_prefix": "de"}},
            ["data: c: src_prefix does nothing: the transform prefix alone reads it: add one to "
             "the transforms of this corpus, or remove it"],
        ),
        ("", {"c": {"transforms": ["normalize"], "src_lang": "de"}}, []),
        (
            "", {"c": {**FILTER, "src_seq_length": 50}},
            ["data: c: src_seq_length does nothing in a corpus: write it outside data"],
        ),
        (
            "", {"c": {**FILTER, "n_src_feats": 1, "batch_size": 3}},
            ["data: c: n_src_feats does nothing in a corpus: write it outside data",
             "data: c: batch_size does nothing in a corpus: write it outside data"],
        ),
    ],
)  # fmt: skip
def test_what_is_told(parse: Parse, yaml: str, corpora: dict[str, Any], texts: list[str]) -> None:
    opt = parse(yaml=f"{yaml}\n")
    opt.data = corpora
    assert unread_options(opt) == texts
