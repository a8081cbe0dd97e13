"""OpenNMT-py's own pull-request checks, those of RNNs and of the graph encoder, with our types.

The checks are those that its repository's workflow runs: the options are its own, on a corpus that
is made here.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

# As in the workflow, but that our types are asked for.
RNN = {"hidden_size": 10, "word_vec_size": 5, "batch_size": 10, "bucket_size": 1024,
       "report_every": 5, "optim": "sgd", "learning_rate": 1.0, "dropout": 0.3}  # fmt: skip


def board(commands: Any) -> set[str]:
    """The names of what was logged for tensorboard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = {path.parent for path in (commands.folder / "logs").rglob("events.*")}
    events = EventAccumulator(str(folder))
    events.Reload()
    return set(events.Tags()["scalars"])


@pytest.mark.parametrize(
    ("options", "logged"),
    [
        ({}, "progress/ppl"),
        ({"copy_attn": True, "valid_steps": 5}, "valid/ppl"),
        ({"coverage_attn": True, "lambda_coverage": 0.1}, "progress/accuracy"),
        ({"valid_steps": 5, "valid_metrics": ["BLEU", "TER"]}, "valid/BLEU"),
        ({"valid_steps": 5, "valid_metrics": ["BLEU", "TER"], "copy_attn": True}, "valid/TER"),
    ],
    ids=str,
)
def test_training(commands: Any, options: dict[str, Any], logged: str) -> None:
    logs = {"tensorboard": True, "tensorboard_log_dir": commands.folder / "logs"}
    run = commands.train(10, **RNN, **logs, **options)
    assert run.parts[1] == "opennmt_sd.onmt.decoder"
    assert logged in board(commands)


def test_features(commands: Any) -> None:
    commands = commands.with_features()
    features = {"n_src_feats": 1, "src_feats_defaults": "0", "transforms": "inferfeats",
                "reversible_tokenization": "joiner", "feat_merge": "sum"}  # fmt: skip
    metrics = {"valid_steps": 5, "valid_metrics": ["BLEU", "TER"]}
    run = commands.train(10, **RNN, **features, **metrics)
    out = commands.translate(run.checkpoint(), n_src_feats=1, verbose=True)
    assert len(out.lines) == 5


@pytest.fixture(scope="module")
def trained(commands_in: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained until it reverses some sentences well: the path."""
    commands = commands_in(tmp_path_factory.mktemp("trained"))
    path: Path = commands.train(60, bucket_size=60, save_checkpoint_steps=60).checkpoint()
    return path


def test_translation(commands: Any, trained: Path) -> None:
    greedy = commands.translate(trained, verbose=True, beam_size=1)
    assert len(greedy.lines) == 5
    assert commands.translate(trained, trained, beam_size=1).lines == greedy.lines, "an ensemble"
    cold = {"random_sampling_topk": -1, "random_sampling_temp": 0.0001, "seed": 1, "beam_size": 1}
    target = commands.corpus / "test.tgt"
    assert commands.translate(trained, batch_size=10, tgt=target, **cold).lines == greedy.lines
    wide = commands.translate(trained, batch_size=10, beam_size=10, tgt=target, verbose=True)
    assert wide.lines == commands.translate(trained, batch_size=1, beam_size=10).lines
    assert "GOLD SCORE" in wide.log[-1]


def test_the_inference_engine(commands: Any, trained: Path) -> None:
    """As `test_inference_engines.py` uses it: a file, and the list of its lines."""
    from onmt.bin.translate import _get_parser
    from onmt.inference_engine import InferenceEnginePY
    from onmt.utils.parse import ArgumentParser

    src = commands.corpus / "test.src"
    opt = _get_parser().parse_args(
        ["-model", str(trained), "-src", str(src), "-output", str(commands.folder / "out")]
    )
    ArgumentParser.validate_translate_opts(opt)
    ArgumentParser._get_all_transform_translate(opt)
    engine = InferenceEnginePY(opt)
    of_file, of_list = engine.infer_file(), engine.infer_list(src.read_text().splitlines())
    assert of_file == of_list
    assert len(of_list[1]) == 5
    engine.terminate()


def test_vocabulary_update(commands: Any) -> None:
    run = commands.train(10, **RNN)
    more = {}
    for side in ("src", "tgt"):
        more[f"{side}_vocab"] = commands.folder / f"more.{side}"
        old = (commands.corpus / f"vocab.{side}").read_text()
        more[f"{side}_vocab"].write_text("new_tok\n" + old)
    goes_on = commands.train(
        20, "updated", **{**RNN, **more}, update_vocab=True, reset_optim="states",
        train_from=run.checkpoint(),
    )  # fmt: skip
    assert [update.step for update in goes_on.updates] == list(range(11, 21))
    assert len(commands.translate(goes_on.checkpoint()).lines) == 5


# The graph encoder: lines of nodes, their flags and their edges.

NODES = 12


def graph(draw: random.Random) -> str:
    nodes = draw.choices("abcd", k=draw.randint(3, 6))
    flags = [str(draw.randint(0, 3)) for _ in range(len(nodes) + 1)]
    edges = [[str(n) for n in draw.sample(range(len(nodes)), 2)] for _ in range(8)]
    kinds = [" ".join(f"{one} {other}" for one, other in edges[i::2]) for i in range(2)]
    return " ".join([*nodes, "<EOT>", *flags, "<EOT>", " , ".join(kinds)])


@pytest.fixture
def graphs(commands: Any, tmp_path: Path) -> dict[str, Any]:
    """The options of a corpus of graphs, whose lines are longer than there are nodes."""
    draw = random.Random(0)
    lines = [graph(draw) for _ in range(40)]
    assert max(len(line.split()) for line in lines) > NODES
    data = commands.data(
        train_src="".join(f"{line}\n" for line in lines),
        train_tgt="".join(f"{line.partition(' <EOT>')[0]}\n" for line in lines),
    )
    vocab = ["<unk>", "<blank>", "<s>", "</s>", *"abcd", "<EOT>", ",", *map(str, range(NODES))]
    (tmp_path / "src.vocab").write_text("".join(f"{word}\n" for word in vocab))
    (tmp_path / "tgt.vocab").write_text("a\nb\nc\nd\n")
    return {
        "data": data["data"], "src_vocab": tmp_path / "src.vocab",
        "tgt_vocab": tmp_path / "tgt.vocab", "source": "".join(f"{line}\n" for line in lines[:9]),
    }  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"global_attention": "mlp", "dropout": 0.3},
        {"global_attention": "dot", "decoder_type": "rnn"},
        {"rnn_type": "GRU"},
        {"input_feed": 0, "layers": 4},
        # docs/source/examples/ggnn
        {
            "src_ggnn_size": 40,
            "src_word_vec_size": 16,
            "tgt_word_vec_size": 32,
            "word_vec_size": -1,
        },
    ],
    ids=str,
)
def test_graph_encoder(commands: Any, graphs: dict[str, Any], options: dict[str, Any]) -> None:
    source = graphs.pop("source")
    given = {
        "encoder_type": "ggnn", "decoder_type": "sd_rnn", "layers": 2, "hidden_size": 32,
        "word_vec_size": 32, "state_dim": 32, "n_edge_types": 2, "n_node": NODES, "n_steps": 3,
        "bridge": True, "batch_size": 8, "bucket_size": 40, "optim": "sgd", "learning_rate": 0.1,
    }  # fmt: skip
    run = commands.train(4, **{**given, **graphs, **options})
    assert all(update.n_words > 0 and update.ppl < 100 for update in run.updates)
    out = commands.translate(run.checkpoint(), source=source, beam_size=5, n_best=5,
                             replace_unk=True, coverage_penalty="wu", beta=0.2)  # fmt: skip
    assert len(out.lines) == 5 * 9


# The two summarization recipes: config/config-rnn-summarization.yml and docs' cnndm.yaml. Their
# sizes, data and GPUs are not theirs here.
RECIPES: dict[str, dict[str, Any]] = {
    "config-rnn-summarization": {
        "encoder_type": "sd_brnn", "decoder_type": "sd_rnn", "optim": "adagrad", "seed": 3435,
        "learning_rate": 0.15, "adagrad_accumulator_init": 0.1, "max_grad_norm": 2, "layers": 1,
        "batch_size": 16, "dropout": 0.0, "copy_attn": "true", "global_attention": "mlp",
        "reuse_copy_attn": "true", "bridge": "true", "keep_checkpoint": 10,
    },
    "cnndm": {
        "encoder_type": "sd_brnn", "decoder_type": "sd_rnn", "share_vocab": "true",
        "src_vocab_size": 50000, "tgt_vocab_size": 50000, "copy_attn": "true",
        "global_attention": "mlp", "layers": 1, "max_grad_norm": 2, "dropout": 0, "batch_size": 16,
        "valid_batch_size": 16, "optim": "adagrad", "learning_rate": 0.15,
        "adagrad_accumulator_init": 0.1, "reuse_copy_attn": "true",
        "copy_loss_by_seqlength": "true", "bridge": "true", "seed": 777, "overwrite": False,
        "src_seq_length": 10000, "tgt_seq_length": 10000, "src_seq_length_trunc": 400,
        "tgt_seq_length_trunc": 100,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_summarization_recipe(commands: Any, name: str) -> None:
    import yaml

    file = commands.folder / "recipe.yaml"
    file.write_text(yaml.safe_dump({**RECIPES[name], "hidden_size": 12, "word_vec_size": 8}))
    from onmt.bin import train as command

    data = commands.data()
    given = {"config": file, "save_model": commands.folder / "model", "train_steps": 3,
             "save_checkpoint_steps": 3, "num_workers": 0, "bucket_size": 60, **data}  # fmt: skip
    args = [word for key, value in given.items() for word in (f"-{key}", str(value))]
    opt, unknown = command._get_parser().parse_known_args(args)
    assert not unknown
    assert opt.copy_attn
    command.train(opt)
    out = commands.translate(
        commands.folder / "model_step_3.pt", coverage_penalty="summary", beta=5, alpha=0.9,
        length_penalty="wu", stepwise_penalty=True, block_ngram_repeat=3,
        ignore_when_blocking=[".", "</t>", "<t>"],
    )  # fmt: skip
    assert len(out.lines) == 5
