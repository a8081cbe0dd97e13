"""Settings that end in a traceback, in silence or never in stock are refused with a remedy."""

from __future__ import annotations

import copy
import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from opennmt_sd.seq2seq.refusals import UnsupportedOptionsError

Parse = Callable[..., Namespace]
Refused = Callable[..., str]
CPU = "torch sees none: remove gpu_ranks and world_size to train on the CPU"
# What is set, the text, and what makes it work.
TABLE = {
    "tied": (
        "share_decoder_embeddings: true\nword_vec_size: 10\nhidden_size: 12",
        "share_decoder_embeddings ties the target embeddings, 10 wide, to the generator, which "
        "needs hidden_size 12: set word_vec_size: 12, or remove share_decoder_embeddings",
        ("-word_vec_size", "12"),
    ),
    "mean": (
        "encoder_type: mean\nword_vec_size: 10\nhidden_size: 12",
        "encoder_type mean gives the decoder the source embeddings, 10 wide, and it needs "
        "hidden_size 12: set word_vec_size: 12",
        ("-word_vec_size", "12"),
    ),
    "shared": (
        "share_embeddings: true",
        "share_embeddings needs one vocabulary for both sides: add share_vocab: true",
        ("-share_vocab",),
    ),
    "shared widths": (
        "share_embeddings: true\nshare_vocab: true\nsrc_word_vec_size: 8\ntgt_word_vec_size: 6",
        "share_embeddings needs one width, src_word_vec_size is 8 and tgt_word_vec_size 6: set "
        "word_vec_size: 8",
        ("-word_vec_size", "8"),
    ),
    "hidden": (
        "enc_hid_size: 8\ndec_hid_size: 12",
        "enc_hid_size 8 and dec_hid_size 12 must be equal: set hidden_size: 12",
        ("-hidden_size", "12"),
    ),
    "layers": ("enc_layers: 0\ndec_layers: 0", "layers 0 must be at least 1", ("-layers", "1")),
    "world": (
        "world_size: 2",
        "world_size 2 without gpu_ranks would train nothing: set gpu_ranks, one for each GPU of "
        "this machine, or world_size: 1 to train on the CPU",
        ("-world_size", "1"),
    ),
    "accum": (
        "accum_count: [2, 4]",
        "accum_count [2, 4] and accum_steps [0] must be equally long",
        ("-accum_steps", "0", "100"),
    ),
    "accum 0": ("accum_count: 0", "accum_count [0] must be at least 1", ("-accum_count", "1")),
    "valid_steps": ("valid_steps: 0", "valid_steps 0 must be at least 1", ("-valid_steps", "5")),
    "report": ("report_every: 0", "report_every 0 must be at least 1", ("-report_every", "5")),
    "bucket": ("bucket_size: 0", "bucket_size 0 must be at least 1", ("-bucket_size", "9")),
    "smoothing": (
        "label_smoothing: 1.5",
        "label_smoothing 1.5 is outside [0, 1)",
        ("-label_smoothing", "0.1"),
    ),
    "rate": (
        "learning_rate: -1",
        "learning_rate -1.0 must not be negative",
        ("-learning_rate", "1"),
    ),
    "init": (
        "param_init: 0",
        "param_init 0 draws no weights: set param_init: 0.1 (the default), or param_init_glorot: "
        "true",
        ("-param_init_glorot",),
    ),
    "warmup": (
        "decay_method: noam\nwarmup_steps: 0",
        "warmup_steps 0 must be at least 1 with decay_method noam",
        ("-warmup_steps", "10"),
    ),
    "criteria": (
        "early_stopping: 2\nearly_stopping_criteria: bleu",
        "early_stopping_criteria bleu is unknown: use accuracy or ppl",
        ("-early_stopping_criteria", "ppl"),
    ),
    "metric criteria": (
        "early_stopping: 2\nearly_stopping_criteria: BLEU\nvalid_metrics: BLEU",
        "early_stopping_criteria BLEU is unknown: use accuracy or ppl",
        ("-early_stopping_criteria", "ppl"),
    ),
    "encoder": ("encoder_type: lstm", "encoder_type lstm is unknown: use brnn, ", None),
    "decoder": ("decoder_type: lstm", "decoder_type lstm is unknown: use cnn, ", None),
    "cnn": ("decoder_type: cnn", "decoder_type cnn cannot start from the state of encoder_type "
            "sd_brnn: set decoder_type: sd_rnn", ("-decoder_type", "sd_rnn")),
    "package": ("optim: fusedadam", "optim fusedadam needs apex, which is not installed: set "
                "optim: adam", ("-optim", "adam")),
}  # fmt: skip


@pytest.mark.parametrize(("yaml", "text", "remedy"), TABLE.values(), ids=TABLE)
def test_refused(
    parse: Parse, refused: Refused, yaml: str, text: str, remedy: tuple[str, ...] | None
) -> None:
    assert f"error: {text}" in refused(yaml=yaml)
    if remedy is not None:
        parse(*remedy, yaml=yaml)


@pytest.mark.parametrize(
    ("there", "yaml", "text"),
    [
        (0, "gpu_ranks: [0]", f"gpu_ranks [0] needs 1 GPU, {CPU}"),
        (0, "gpu_ranks: [0, 1]\nworld_size: 2", f"gpu_ranks [0, 1] needs 2 GPUs, {CPU}"),
        (1, "gpu_ranks: [0, 1]\nworld_size: 2", "torch sees 1: set gpu_ranks: [0] and world_size"),
        (2, "gpu_ranks: [0, 1]", "gpu_ranks [0, 1] are more than world_size 1: set world_size: 2"),
        (2, "gpu_ranks: [1]", "gpu_ranks [1] must be [0] with world_size 1 on one machine"),
    ],
)
def test_gpus(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, there: int, yaml: str, text: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    assert text in refused(yaml=yaml)


def test_gpus_that_are_there(parse: Parse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    parse("-gpu_ranks", "0")
    parse("-gpu_ranks", "0", "1", "-world_size", "2")
    parse("-gpu_ranks", "2", "3", "-world_size", "4")  # the second machine of two


@pytest.fixture
def checkpoint(parse: Parse, tmp_path: Path) -> str:
    """Of step 10."""
    state = {"training_step": 11, "decay_step": 11, "optimizer": {}}
    path = tmp_path / "model.pt"
    torch.save({"model": {}, "vocab": {}, "opt": copy.copy(parse()), "optim": state}, path)
    return str(path)


@pytest.mark.parametrize("steps", [5, 10])
def test_steps_that_are_reached(
    parse: Parse, refused: Refused, checkpoint: str, steps: int
) -> None:
    error = refused("-train_from", checkpoint, "-train_steps", str(steps))
    assert f"error: train_steps {steps} is reached: {checkpoint} is of step 10: set" in error
    parse("-train_from", checkpoint, "-train_steps", "11")
    parse("-train_from", checkpoint, "-train_steps", str(steps), "-reset_optim", "all")


# What is seen when the training begins.


def refusal(commands: Any, **options: Any) -> str:
    """Begin a training; give the text of its refusal. Nothing is written."""
    with pytest.raises(UnsupportedOptionsError) as caught:
        commands.train(1, **options)
    assert not list(commands.folder.glob("model*"))
    return str(caught.value)


def test_missing_files(commands: Any) -> None:
    data = {"data": "{c: {path_src: none, path_tgt: /dev/null}}"}
    options = {"src_vocab": "nowhere", "tgt_vocab": commands.corpus}
    assert refusal(commands, **data, **options).splitlines() == [
        "4 faults in the options:",
        "  data: c: path_src none: no such file",
        "  data: c: path_tgt /dev/null: this is a device or a pipe: give a text file",
        "  src_vocab nowhere: no such file",
        f"  tgt_vocab {commands.corpus}: this is a folder: give a file of onmt_build_vocab's",
    ]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("nothing", "data 'nothing' names no corpora: write data: {corpus: {path_src: FILE"),
        ("[1, 2", "data is no YAML: "),
        ("{c: {path_tgt: TGT}}", "data: c: path_src is missing"),
        ("{valid: {path_src: SRC, path_tgt: TGT}}", "data names no training corpus: add one"),
        ("{c: {path_src: SRC, path_tgt: TGT, weight: 0.5}}", "data: c: weight 0.5 must be a whole"),
        ("{c: {path_src: SRC, path_tgt: TGT, weight: -1}}", "data: c: weight -1 must be a whole"),
        ("{c: {path_src: SRC, path_tgt: TGT, weight: x}}", "data: c: weight 'x' must be a whole"),
        ("{c: {path_src: SRC, path_tgt: TGT, transforms: bpe}}", "must be a list: write [bpe]"),
        ("{c: {path_src: SRC, path_tgt: TGT, transforms: [bep]}}", "transform bep is unknown: use"),
        ("{c: {path_src: SRC, path_tgt: TGT, transform: [bpe]}}", "did you mean transforms?"),
    ],
)
def test_corpora(commands: Any, data: str, text: str) -> None:
    for side in ("src", "tgt"):
        data = data.replace(side.upper(), str(commands.corpus / f"train.{side}"))
    assert text in refusal(commands, data=data)


def without_optimizer(commands: Any, **options: Any) -> Any:
    """A checkpoint that was released, say."""
    path = commands.train(1, "start", **options).checkpoint()
    torch.save({**torch.load(path), "optim": None}, path)
    return path


@pytest.mark.parametrize("reset", ["none", "keep_states", "all"])
def test_a_checkpoint_without_an_optimizer(commands: Any, reset: str) -> None:
    """As with stock, training begins at step 1 with its weights."""
    path = without_optimizer(commands)
    run = commands.train(2, "more", train_from=path, reset_optim=reset)
    assert [update.step for update in run.updates] == [1, 2]
    told = [line for line in run.log if "has no state of an optimizer" in line]
    assert told == ([] if reset == "all" else [
        f"opennmt_sd: train_from {path} has no state of an optimizer (it was released or "
        "averaged): training begins at step 1, with a new one"
    ])  # fmt: skip


def test_states_that_are_not_there_cannot_be_reset(commands: Any) -> None:
    path = without_optimizer(commands)
    with pytest.raises(UnsupportedOptionsError) as caught:
        commands.train(2, "more", train_from=path, reset_optim="states")
    assert str(caught.value) == (
        f"train_from {path} has no state of an optimizer: add reset_optim: all to begin at step 1 "
        "with its weights"
    )


STOCK = {"encoder_type": "brnn", "decoder_type": "rnn"}


def corpora(commands: Any, *entries: str) -> str:
    """``data`` of the training text under a name for each of some further keys."""
    paths = ", ".join(f"path_{side}: {commands.corpus}/train.{side}" for side in ("src", "tgt"))
    return f"{{{', '.join(f'c{i}: {{{paths}{more}}}' for i, more in enumerate(entries))}}}"


@pytest.mark.parametrize("weight", ["0", "2.0", "'2'", "null"])
@pytest.mark.parametrize("types", [{}, STOCK], ids=["ours", "stock"])
def test_weights_that_stock_reads(commands: Any, weight: str, types: dict[str, str]) -> None:
    data = corpora(commands, "", f", weight: {weight}")
    assert len(commands.train(1, data=data, **types).updates) == 1


def test_what_stock_takes_is_a_fault_with_our_types_alone(commands: Any) -> None:
    """A weight that would be cut off, and a key that nobody reads: said where it is trained."""
    data = corpora(commands, ", weight: 1.5, comment: x")
    text = refusal(commands, data=data)
    assert "data: c0: weight 1.5 must be a whole number of 0 or more" in text
    assert "data: c0: comment is no key of a corpus" in text
    run = commands.train(1, data=data, **STOCK)
    assert any("data: c0: comment is no key of a corpus" in line for line in run.log)


@pytest.mark.parametrize("types", [{}, STOCK], ids=["ours", "stock"])
def test_nothing_is_left_to_train_on(commands: Any, types: dict[str, str]) -> None:
    text = refusal(commands, data=corpora(commands, ", weight: 0", ", weight: 0"), **types)
    assert text == "data: every training corpus has weight 0: give one that is trained on 1 or more"


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_missing_target(commands: Any, split: str) -> None:
    """Stock would train on something else, in silence."""
    data = commands.data()
    corpus = json.loads(data["data"])
    name = "valid" if split == "valid" else "corpus_1"
    del corpus[name]["path_tgt"]
    data["data"] = json.dumps(corpus)
    assert refusal(commands, **data) == (
        f"data: {name}: path_tgt is missing: the source would be taken for it. Name the file with "
        "the translations (or path_src's, for copies)"
    )


def test_a_text_of_a_language_model(commands: Any) -> None:
    data = f"{{c: {{path_txt: {commands.corpus}/train.src}}}}"
    assert refusal(commands, data=data) == (
        "data: c: path_txt is a language model's text: name path_src and path_tgt, with a line of "
        "each for a pair"
    )


def test_a_resumed_model_of_ours_is_ours_whatever_this_run_says(commands: Any) -> None:
    """A checkpoint's types win."""
    path = commands.train(1, "start").checkpoint()
    data = corpora(commands, ", weight: 0.5, comment: x")
    with pytest.raises(UnsupportedOptionsError) as caught:
        commands.train(2, "more", train_from=path, data=data, **STOCK)
    assert "weight 0.5 must be a whole number" in str(caught.value)
    assert "comment is no key of a corpus" in str(caught.value)


def test_building_a_vocabulary_warns(commands: Any) -> None:
    """It knows no types; without a target it would take the source's words for the target's."""
    data = f"{{c: {{path_src: {commands.corpus}/train.src, path_tgtt: {commands.corpus}/none}}}}"
    log = commands.build_vocab(data=data)
    told = [line for line in log if line.startswith("opennmt_sd: ")]
    assert [line[:46] for line in told] == [
        "opennmt_sd: data: c: path_tgtt is no key of a ",
        "opennmt_sd: data: c: path_tgt is missing: the ",
    ]


@pytest.mark.parametrize(
    ("vectors", "text"),
    [
        (
            torch.zeros(7, 10),
            "has 7 rows, the src vocabulary 24 words: make it with src_embeddings",
        ),
        (torch.zeros(24, 3), "has a width of 3, src_word_vec_size is 10: set src_word_vec_size: 3"),
        ({"a": 1}, "must hold one tensor, [words, width]"),
    ],
)
def test_word_vectors(commands: Any, vectors: Any, text: str) -> None:
    path = commands.folder / "vectors.pt"
    torch.save(vectors, path)
    assert f"pre_word_vecs_enc {path} {text}" in refusal(commands, pre_word_vecs_enc=path)


def test_word_vectors_of_text(commands: Any) -> None:
    path = commands.folder / "vectors.txt"
    text = refusal(commands, src_embeddings=path, both_embeddings=path)
    assert f"src_embeddings {path}: no such file" in text
    assert "both_embeddings needs embeddings_type: GloVe or word2vec" in text
    assert "both_embeddings is for both sides: remove src_embeddings" in text
    path.write_text("w1 0.5\n")
    text = refusal(commands, both_embeddings=path, embeddings_type="GloVe",
                   save_data=commands.folder / "run" / "example")  # fmt: skip
    assert text.endswith(f"example: there is no folder {commands.folder / 'run'}: make it")


def test_heads_of_a_transformer_decoder(commands: Any) -> None:
    text = refusal(commands, decoder_type="transformer")
    assert "12 is no multiple of 8: set heads, or another hidden_size" in text
