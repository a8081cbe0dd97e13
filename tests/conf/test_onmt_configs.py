"""The OpenNMT-py configurations that ship."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="OpenNMT-py is not installed")
pytest.importorskip("onmt", reason="OpenNMT-py is not installed")

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf" / "onmt"


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / name).read_text(encoding="utf-8"))


RECIPES = {"quickstart.yaml": 0.3, "multi30k.yaml": 0.3, "iwslt14_de_en.yaml": 0.3,
           "iwslt15_en_vi.yaml": 0.2, "iwslt15_en_vi_small.yaml": 0.2}  # fmt: skip
any_recipe = pytest.mark.parametrize("name", RECIPES)


def parse(name: str, *args: str) -> Namespace:
    """The options, as `onmt_train -config conf/onmt/NAME` gets them."""
    from onmt.opts import train_opts
    from onmt.utils.parse import ArgumentParser

    parser = ArgumentParser()
    train_opts(parser)
    # onmt_train drops a key that it does not know in silence.
    options, unknown = parser.parse_known_args(["-config", str(CONF / name), *args])
    assert unknown == []
    return options


def test_every_recipe_is_tested() -> None:
    trained = {path.name for path in CONF.glob("*.yaml") if "train_steps" in load(path.name)}
    assert trained == set(RECIPES)


@any_recipe
def test_train_knows_every_key(name: str) -> None:
    options = parse(name)
    assert (options.encoder_type, options.decoder_type) == ("sd_brnn", "sd_rnn")
    assert options.dropout == [RECIPES[name]]


@any_recipe
def test_every_recipe_builds_its_model(name: str, tmp_path: Path) -> None:
    from onmt.inputters.inputter import build_vocab
    from onmt.model_builder import build_base_model
    from onmt.utils.parse import ArgumentParser

    for side in ("src", "tgt"):  # as onmt_build_vocab writes them
        (tmp_path / side).write_text("the\t9\na\t5\n.\t5\nonce\t1\n", encoding="utf-8")
    options = parse(name, "-src_vocab", str(tmp_path / "src"), "-tgt_vocab", str(tmp_path / "tgt"))
    ArgumentParser.update_model_opts(options)
    ArgumentParser.validate_model_opts(options)
    options.data_task = options.model_task  # as onmt_train sets it
    vocabs = build_vocab(options, {"src": [], "tgt": []})
    model = build_base_model(options, vocabs)
    names = ("StructuredRNNEncoder", "StructuredInputFeedRNNDecoder")
    assert (type(model.encoder).__name__, type(model.decoder).__name__) == names
    recipe = load(name)
    hidden, words = recipe["hidden_size"], len(vocabs["tgt"])
    assert len(model.decoder.rnn.layers) == recipe["layers"]
    weights = {key: tuple(weight.shape) for key, weight in model.state_dict().items()}
    assert weights["encoder.rnn.weight_hh_l0_reverse"] == (2 * hidden, hidden // 2)
    assert weights["decoder.attn.linear_in.weight"] == (hidden, hidden)  # global_attention: general
    assert words < 10
    assert weights["decoder.embeddings.make_embedding.emb_luts.0.weight"] == (
        words, recipe["word_vec_size"],
    )  # fmt: skip


@any_recipe
def test_paths_belong_together(name: str) -> None:
    recipe = load(name)
    folder = recipe["save_model"].removeprefix("runs/").removesuffix("/model")
    lines = (CONF / name).read_text(encoding="utf-8").splitlines()
    head = "\n".join(line for line in lines if line.startswith("#"))
    assert f"onmt_train -config conf/onmt/{name}\n" in head
    assert f"-model runs/{folder}/model_step_{recipe['train_steps']}.pt" in head
    assert recipe["train_steps"] % recipe["save_checkpoint_steps"] == 0  # so that it is written


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        # TensorFlow's luong234: from 2/3 of 12,000 on, after each of four equal parts.
        ("iwslt15_en_vi.yaml", {1: 1.0, 8_999: 1.0, 9_000: 0.5, 10_000: 0.25, 11_999: 0.125}),
        # 160,239 sentences are 2,504 batches of 64; OpenNMT-py halved after pass 8, 9, ...
        ("iwslt14_de_en.yaml", {1: 1.0, 8 * 2_504 - 1: 1.0, 8 * 2_504: 0.5, 9 * 2_504: 0.25,
                                20 * 2_504 - 1: 0.5**12}),
    ],
)  # fmt: skip
def test_learning_rates(name: str, rates: dict[int, float]) -> None:
    from onmt.utils.optimizers import make_learning_rate_decay_fn

    options = parse(name)
    decay = make_learning_rate_decay_fn(options)
    assert {step: options.learning_rate * decay(step) for step in rates} == rates


def test_translate_knows_every_key() -> None:
    from onmt.opts import translate_opts
    from onmt.utils.parse import ArgumentParser

    parser = ArgumentParser()
    translate_opts(parser)
    options = parser.parse_args(
        ["-config", str(CONF / "quickstart_translate.yaml"), "-model", "m", "-src", "s"]
    )
    assert options.transforms == ["onmt_tokenize"]


def test_translate_tokenises_as_training_does() -> None:
    train, translate = load("quickstart.yaml"), load("quickstart_translate.yaml")
    for key in ("src_onmttok_kwargs", "tgt_onmttok_kwargs"):
        assert translate[key] == train[key]
    assert all(corpus["transforms"] == translate["transforms"] for corpus in train["data"].values())


def test_quickstart_finds_its_files_from_the_root() -> None:
    settings = load("quickstart.yaml")
    paths = [path for corpus in settings["data"].values()
             for key, path in corpus.items() if key.startswith("path_")]  # fmt: skip
    for path in [*paths, settings["src_vocab"], settings["tgt_vocab"]]:
        assert (ROOT / path).is_file(), path
