"""A line in, a line out: blank lines, lines that break, and none at all."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TEXT = ["w1 w2 w3", "", "w4", "   ", "\t", "w5 w6 w7 w8 w9", "\u2028", "w3 w1", ""]
BLANK = [i for i, line in enumerate(TEXT) if not line.strip()]
TARGET = ["w1", "w2", "", " ", "w3", "w4 w5", "", "w1 w1", "w1"]
# What Python, and no file, takes for the end of a line; and a tab, which is none.
BREAKS = ["\t", "\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


@pytest.fixture
def model(untrained: Callable[..., Path]) -> Path:
    return untrained()


def joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize(("beam", "n_best"), [(1, 1), (4, 1), (4, 3)])
@pytest.mark.parametrize("batch", [1, 3, 30])
def test_blank_lines_stay(commands: Any, model: Path, beam: int, n_best: int, batch: int) -> None:
    given = {"beam_size": beam, "n_best": n_best, "batch_size": batch, "with_score": True}
    full = [line for line in TEXT if line.strip()]
    expected = iter(commands.translate(model, source=joined(full), **given).lines)
    out = commands.translate(model, source=joined(TEXT), **given)
    assert len(out.lines) == n_best * len(TEXT)
    for place, line in enumerate(out.lines):
        if place // n_best in BLANK:
            assert line == "\t0.0"
        else:
            text, score = line.split("\t")
            its_text, its_score = next(expected).split("\t")
            assert text == its_text
            assert float(score) == pytest.approx(float(its_score), abs=1e-4)
    assert out.log[-1].endswith(f"NB SENTENCES: {len(full)}")


@pytest.mark.parametrize("text", ["", "\n", " \n\t\n\n"], ids=repr)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_best": 2, "with_score": True, "verbose": True, "attn_debug": True},
        {"random_sampling_topk": 1, "report_time": True},
    ],
    ids=str,
)
def test_no_line_with_a_word(
    commands: Any, model: Path, text: str, options: dict[str, Any]
) -> None:
    out = commands.translate(model, source=text, **options)
    blank = "\t0.0" if "with_score" in options else ""
    assert out.lines == [blank] * (text.count("\n") * options.get("n_best", 1))
    if not text:
        assert out.log[-1] == "PRED No translations"


@pytest.mark.parametrize("options", [{}, {"copy_attn": True}], ids=["plain", "copies"])
def test_with_a_target(
    commands: Any, untrained: Callable[..., Path], options: dict[str, Any]
) -> None:
    """A blank target is the end and nothing else; of a blank source there is nothing to score."""
    model = untrained(**options)
    target = commands.folder / "target"
    target.write_text(joined(TARGET))

    def scores(**options: Any) -> list[float]:
        log = commands.translate(
            model, source=joined(TEXT), tgt=target, verbose=True, **options
        ).log
        texts = [text.rpartition("GOLD SCORE: ")[2] for text in log if "SENT " in text]
        return [float(text) for text in texts]

    found = scores(batch_size=4)
    assert [i for i, score in enumerate(found) if score == 0] == BLANK
    assert scores(batch_size=1) == pytest.approx(found, abs=2e-4)
    target.write_text(joined([TARGET[2]] * len(TEXT)))  # no batch with a word in its target
    assert scores(batch_size=4)[2] == pytest.approx(found[2], abs=2e-4)


def test_with_a_prefix(commands: Any, model: Path) -> None:
    """A blank prefix begins nothing: the translation is that without one."""
    target = commands.folder / "target"
    target.write_text(joined(TARGET))
    free = commands.translate(model, source=joined(TEXT)).lines
    lines = commands.translate(model, source=joined(TEXT), tgt=target, tgt_file_prefix=True).lines
    assert len(lines) == len(TEXT)
    for i, prefix in enumerate(TARGET):
        if i in BLANK:
            assert lines[i] == ""
        elif prefix.strip():
            assert lines[i].startswith(prefix)
        else:
            assert lines[i] == free[i]


@pytest.mark.parametrize("options", [{}, {"copy_attn": True}], ids=["plain", "copies"])
def test_what_breaks_a_line(
    commands: Any, untrained: Callable[..., Path], options: dict[str, Any]
) -> None:
    """The output is read by what takes all of these for the end of a line."""
    lines = [f"w1{mark}w2 w3{mark} w{i} {mark} w5" for i, mark in enumerate(BREAKS)]
    path = untrained(**options)
    out = commands.translate(path, source=joined(lines), replace_unk=True, with_score=True)
    assert len(out.lines) == len(lines)
    assert all(line.count("\t") == 1 for line in out.lines)


def test_a_copied_word_breaks_no_line(plugin: None) -> None:
    import torch
    from onmt.translate.translation import TranslationBuilder
    from pyonmttok import build_vocab_from_tokens

    from opennmt_sd.onmt.translation import mend_translation

    mend_translation()
    specials = ["<unk>", "<blank>", "<s>", "</s>"]
    src = build_vocab_from_tokens([*specials, "a", "b", "c"])
    tgt, own = (
        build_vocab_from_tokens([*specials, *more]) for more in (["a"], ["x\u2028y", "z\tz"])
    )
    builder = TranslationBuilder({"src": src, "tgt": tgt})
    ids = torch.tensor([4, 5 + 4, 5 + 5, 3, 1, 1])  # a, two copies, the end, padding
    tokens = builder._build_target_tokens(None, 0, ids, None, tgt.ids_to_tokens, own)
    assert tokens == ["a", "x y", "z z"]


def test_more_lines_than_a_bucket_holds(
    commands: Any, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onmt.inputters.dynamic_iterator import DynamicDatasetIter

    lines = [*(TEXT * 3), "w1"]
    expected = commands.translate(model, source=joined(lines)).lines
    assert expected[: len(TEXT)] == expected[len(TEXT) : 2 * len(TEXT)]
    init = DynamicDatasetIter.__init__

    def small(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **{**kwargs, "bucket_size": 5})

    monkeypatch.setattr(DynamicDatasetIter, "__init__", small)
    for batch in (1, 2, 30):
        assert commands.translate(model, source=joined(lines), batch_size=batch).lines == expected


def test_source_features(commands: Any, tmp_path: Path) -> None:
    featured = commands.with_features()
    run = featured.train(1, n_src_feats=1, src_feats_defaults="0", feat_merge="sum",
                         transforms="inferfeats", reversible_tokenization="joiner")  # fmt: skip
    text = "w1\uffe81 w2\uffe82\n\nw3\uffe83\n \n"
    out = featured.translate(run.checkpoint(), source=text, n_src_feats=1)
    assert len(out.lines) == 4
    assert [i for i, line in enumerate(out.lines) if not line] == [1, 3]


@pytest.mark.parametrize("batch", [1, 30])
def test_lines_that_a_transform_leaves_out(commands: Any, model: Path, batch: int) -> None:
    """Too long ones, with no target beside them; the others are translated as ever."""
    options = {"batch_size": batch, "with_score": True}
    expected = commands.translate(model, source=joined(TEXT), **options).lines
    found = commands.translate(
        model, source=joined(TEXT), transforms="filtertoolong", src_seq_length=3, **options
    ).lines
    assert len(found) == len(TEXT)
    for text, line, want in zip(TEXT, found, expected, strict=True):
        if len(text.split()) > 3:
            assert line == "\t0.0"
        else:
            assert line.split("\t")[0] == want.split("\t")[0]


def test_lists(engine: Callable[..., Any], model: Path) -> None:
    translator = engine(model, n_best=2)
    scores, texts = translator.infer_list(TEXT)
    assert [len(best) for best in texts] == [2] * len(TEXT)
    assert [i for i, best in enumerate(texts) if best == ["", ""] and scores[i] == [0, 0]] == BLANK
    assert translator.infer_list(["", " "]) == ([[0.0, 0.0]] * 2, [["", ""]] * 2)
    assert translator.infer_list([]) == ([], [])


@pytest.fixture
def engine(commands: Any) -> Callable[..., Any]:
    """OpenNMT-py's way to translate lists."""

    def engine(model: Path, **options: Any) -> Any:
        from onmt.bin.translate import _get_parser
        from onmt.inference_engine import InferenceEnginePY
        from onmt.utils.parse import ArgumentParser

        given = {"model": model, "src": commands.corpus / "test.src",
                 "output": commands.folder / "out", "max_length": 8, **options}  # fmt: skip
        args = itertools.chain(*((f"-{key}", str(value)) for key, value in given.items()))
        opt = _get_parser().parse_args(list(args))
        ArgumentParser._get_all_transform_translate(opt)
        return InferenceEnginePY(opt)

    return engine


@pytest.mark.parametrize("options", [{}, {"copy_attn": True}], ids=["plain", "copies"])
def test_the_server(untrained: Callable[..., Path], options: dict[str, Any]) -> None:
    path = untrained(**options)
    server = lazy_server(path, n_best=2, beam_size=3)
    texts, scores, n_best, *_ = server.run([{"src": text} for text in TEXT])
    assert len(texts) == len(scores) == n_best * len(TEXT)
    assert not any(texts[2 * i + k].strip() for i in BLANK for k in (0, 1))
    assert any(text.strip() for text in texts)


def lazy_server(path: Path, **options: Any) -> Any:
    from onmt.translate.translation_server import ServerModel

    opt = {"models": [path.name], "gpu": -1, **options}
    return ServerModel(opt, 1, model_root=str(path.parent))


def test_align_is_refused_before_a_lazy_server_starts(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        lazy_server(model, report_align=True)
    assert exit_.value.code == 2
    assert "report_align does not work with decoder_type sd_rnn" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "trained", "text"),
    [
        ({"report_align": True}, {}, "report_align does not work with decoder_type sd_rnn"),
        ({"report_align": True, "gold_align": True}, {}, "2 faults in the options"),
        ({"report_align": True}, {"encoder_type": "brnn", "decoder_type": "rnn"},
         "report_align does not work with decoder_type rnn"),
        ({"attn_debug": True}, {"global_attention": "none"}, "attn_debug needs attention, and "),
        ({"n_best": 4}, {}, "n_best 4 is more than beam_size 3 can find: set beam_size: 4 or more"),
        ({"max_length": 0}, {}, "max_length 0 leaves no room: set 1 or more"),
        ({"coverage_penalty": "wu"}, {"global_attention": "none"}, "coverage_penalty needs att"),
    ],
    ids=str,
)  # fmt: skip
def test_refused(
    commands: Any, untrained: Callable[..., Path], capsys: pytest.CaptureFixture[str],
    options: dict[str, Any], trained: dict[str, Any], text: str,
) -> None:  # fmt: skip
    with pytest.raises(SystemExit) as exit_:
        commands.translate(untrained(**trained), **options)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert f"error: {text}" in error
    assert "Traceback" not in error


def test_target_of_another_length(
    commands: Any, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = commands.folder / "target"
    target.write_text("w1\nw2\n")
    with pytest.raises(SystemExit) as exit_:
        commands.translate(model, source=joined(TEXT), tgt=target)
    assert exit_.value.code == 2
    assert f"has {len(TEXT)} lines and tgt {target} has 2: give one" in capsys.readouterr().err


def test_a_source_that_is_not_utf8(
    commands: Any, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = commands.folder / "latin"
    source.write_bytes("w1\nw2 caf\u00e9\n".encode("latin1"))
    with pytest.raises(SystemExit) as exit_:
        commands.translate(model, src=source)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert f"error: src {source}, line 2: not UTF-8" in error
    assert "byte 7 of the line" in error


AFFIXES = [
    {"transforms": "prefix", "tgt_prefix": "w1", "tgt_file_prefix": True},
    {"transforms": "suffix", "tgt_suffix": "w1"},
]


@pytest.mark.parametrize("options", AFFIXES, ids=lambda options: str(options["transforms"]))
@pytest.mark.parametrize("given", [{}, {"copy_attn": True}], ids=["plain", "copies"])
def test_a_target_of_a_transforms_making(
    commands: Any, untrained: Callable[..., Path], options: dict[str, Any], given: dict[str, Any]
) -> None:
    """Every line has one but the blank ones; ``tgt_file_prefix`` asks for no file then."""
    model = untrained(**given)
    full = [line for line in TEXT if line.strip()]
    expected = iter(commands.translate(model, source=joined(full), **options).lines)
    for i, line in enumerate(commands.translate(model, source=joined(TEXT), **options).lines):
        assert line == ("" if i in BLANK else next(expected))


def test_a_blank_prefix_behind_a_transforms(commands: Any, model: Path) -> None:
    """It adds nothing to the transform's: no unknown word either."""
    target = commands.folder / "target"
    options = {"transforms": "prefix", "tgt_prefix": "w1", "tgt_file_prefix": True}
    free = commands.translate(model, source=joined(TEXT), **options).lines
    target.write_text(joined(TARGET))
    lines = commands.translate(model, source=joined(TEXT), tgt=target, **options).lines
    blank = [i for i, prefix in enumerate(TARGET) if not prefix.strip()]
    assert [lines[i] for i in blank] == [free[i] for i in blank]


@pytest.mark.parametrize("options", [{}, {"n_best": 2}, {"gold_align": True}], ids=str)
def test_alignments_of_blank_lines(commands: Any, options: dict[str, Any]) -> None:
    """A transformer's, which gives some."""
    run = commands.train(
        1, "aligned", encoder_type="transformer", decoder_type="transformer", heads=2, layers=1,
        hidden_size=12, word_vec_size=12, transformer_ff=24, alignment_heads=1, alignment_layer=0,
    )  # fmt: skip
    target = commands.folder / "target"
    target.write_text(joined(["w1 w2"] * len(TEXT)))
    given = {"report_align": True, "tgt": target, **options}
    count = options.get("n_best", 1)
    lines = commands.translate(run.checkpoint(), source=joined(TEXT), **given).lines
    assert len(lines) == count * len(TEXT)
    for i, line in enumerate(lines):
        text, _, pairs = line.partition(" ||| ")
        if i // count in BLANK:
            assert text + pairs == ""
        elif "gold_align" in options:
            assert len(pairs.split()) == 2, "of two words"


@pytest.mark.parametrize("source", ["<blank> w1 w2\n", "<blank> w1\n\n"])
def test_the_paddings_word_at_a_beginning(
    commands: Any, untrained: Callable[..., Path], source: str
) -> None:
    """It makes no line blank: as stock, the model reads it for what it is."""
    out = commands.translate(untrained(), source=source, with_score=True, min_length=1)
    text, score = out.lines[0].split("\t")
    assert text
    assert float(score) != 0
    assert out.lines[1:] == ["\t0.0"] * (source.count("\n") - 1)


def test_the_mean_score_is_of_lines_with_words(commands: Any, model: Path) -> None:
    full = [line for line in TEXT if line.strip()]
    means = [
        next(line for line in commands.translate(model, source=joined(lines)).log if "PRED" in line)
        for lines in (full, TEXT)
    ]
    assert means[0] == means[1]
