"""Configurations as users of OpenNMT-py 2 and 3 publish them, with our two types in them.

Each is accepted and trains, or it is refused with texts that name the options and the remedies;
done, these let it train. What it has that does nothing is reported.
"""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Any

import pytest

from opennmt_sd.seq2seq.refusals import UnsupportedOptionsError

yaml = pytest.importorskip("yaml", reason="OpenNMT-py is not installed")

PUBLISHED: dict[str, dict[str, Any]] = yaml.safe_load(
    Path(__file__).with_name("published.yaml").read_text(encoding="utf-8")
)
TYPES = {"brnn": "sd_brnn", "rnn": "sd_rnn"}
WIDTHS = ("hidden_size", "enc_hid_size", "dec_hid_size", "rnn_size", "enc_rnn_size", "dec_rnn_size",
          "word_vec_size", "src_word_vec_size", "tgt_word_vec_size")  # fmt: skip
SHORT = {"train_steps": 5, "valid_steps": 5, "save_checkpoint_steps": 5, "num_workers": 0}
REFUSED = [name for name, case in PUBLISHED.items() if "refused" in case]


def small(written: dict[str, Any]) -> dict[str, Any]:
    """Give the same options at toy sizes; widths that were equal stay so, and all are even."""
    sizes = {key: max(4, written[key] // 50 * 2) for key in WIDTHS if key in written}
    if not sizes:
        sizes = {"hidden_size": 20, "word_vec_size": 20}
    batches = {"batch_size": 8, "valid_batch_size": 8}
    if written.get("batch_type") == "tokens":
        batches = {"batch_size": 60, "valid_batch_size": 60, "batch_size_multiple": 1}
    return {**written, **sizes, **batches, "bucket_size": 20, **SHORT}


def with_files(options: dict[str, Any], corpus: Path, folder: Path) -> dict[str, Any]:
    """Fill in the texts of each corpus and the vocabularies."""
    data = options.get("data", {"corpus_1": {}, "valid": {}})
    if isinstance(data, dict):
        data = {
            name: {**{f"path_{side}": f"{corpus}/{'valid' if name == 'valid' else 'train'}.{side}"
                      for side in ("src", "tgt")}, **entry}
            for name, entry in data.items()
        }  # fmt: skip
    vocabularies = {"src_vocab": f"{corpus}/vocab.src"}
    if not options.get("share_vocab"):
        vocabularies["tgt_vocab"] = f"{corpus}/vocab.tgt"
    return {**options, **vocabularies, "data": data, "save_model": f"{folder}/model"}


def changed(options: dict[str, Any], remedy: dict[str, Any]) -> dict[str, Any]:
    """Do what the texts of a refusal say; a key of None is removed."""
    return {key: value for key, value in {**options, **remedy}.items() if value is not None}


class Case:
    """One configuration, to be run as a file."""

    def __init__(self, name: str, commands: Any, stock: Path, capsys: Any) -> None:
        self.case, self.stock, self.capsys = PUBLISHED[name], stock, capsys
        self.commands = commands.with_features() if self.case.get("features") else commands
        written = self.case["written"]
        types = {"encoder_type": TYPES.get(written.get("encoder_type", "rnn")),
                 "decoder_type": "sd_rnn", **self.case.get("types", {})}  # fmt: skip
        self.written = {**written, **types}

    def train(self, options: dict[str, Any]) -> Any:
        """Run `onmt_train -config FILE`."""
        folder = self.commands.folder
        vectors = folder / "vectors"
        vectors.write_text("".join(f"w{i}{' 0.5' * 12}\n" for i in range(20)))
        complete = with_files(small(options), self.commands.corpus, folder)
        text = Template(yaml.safe_dump(complete)).substitute(
            folder=folder, stock=self.stock, vectors=vectors
        )
        (folder / "config.yaml").write_text(text)
        self.capsys.readouterr()
        return self.commands.run(["-config", f"{folder}/config.yaml"], folder / "model")

    def trains(self, options: dict[str, Any]) -> None:
        """Train, and compare what is reported with what is expected."""
        run = self.train(options)
        assert [update.step for update in run.updates] == [1, 2, 3, 4, 5]
        assert all(update.loss == update.loss for update in run.updates), "no NaN"
        assert any(part.startswith("opennmt_sd.") for part in run.parts)
        assert run.checkpoint(5).is_file()
        prefix = "opennmt_sd: warning: "
        errors = self.capsys.readouterr().err.splitlines()
        told = [line.removeprefix(prefix) for line in errors if line.startswith(prefix)]
        told += [line.removeprefix("opennmt_sd: ") for line in run.log if "does nothing" in line]
        expected = self.case.get("told", [])
        assert [line[: len(start)] for line, start in zip(told, expected)] == expected
        assert len(told) == len(expected), told


@pytest.fixture(scope="module")
def stock(commands_in: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of stock's types, in the sizes that `small` makes of 500."""
    commands = commands_in(tmp_path_factory.mktemp("stock"))
    sizes = {"hidden_size": 20, "word_vec_size": 20}
    return commands.train(1, encoder_type="brnn", decoder_type="rnn", **sizes).checkpoint()


@pytest.fixture
def case(
    request: pytest.FixtureRequest,
    commands: Any,
    stock: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Case:
    monkeypatch.setattr("opennmt_sd.onmt.run_faults.gpus", lambda: 0)
    return Case(request.param, commands, stock, capsys)


def test_there_are_enough() -> None:
    assert len(PUBLISHED) >= 30
    assert 10 < len(REFUSED) < len(PUBLISHED) - 10


@pytest.mark.slow
@pytest.mark.parametrize("case", [n for n in PUBLISHED if n not in REFUSED], indirect=True)
def test_accepted(case: Case) -> None:
    case.trains(case.written)


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED, indirect=True)
def test_refused_with_remedies_that_work(case: Case) -> None:
    with pytest.raises((SystemExit, UnsupportedOptionsError)) as refusal:
        case.train(case.written)
    error = case.capsys.readouterr().err + str(refusal.value)
    expected = case.case["refused"]
    for start in expected:
        assert start in error
    count = f"{len(expected)} faults in the options:"
    assert (count in error) == (len(expected) > 1), error
    assert not list(case.commands.folder.glob("model*")), "nothing has been written"
    case.trains(changed(case.written, case.case["remedy"]))
