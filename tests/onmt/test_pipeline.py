"""The plugin through the installed commands: what a user types, on a tiny corpus.

Where it matters how a command starts it is a process of its own, with the plugin loaded by nothing
but the install: the first training as from a shell, others as forks of a Python that has imported
torch. What only goes on from there runs in this process. The runs build on each other, so each is
made once.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch

from opennmt_sd.onmt.checkpoint import read

pytestmark = pytest.mark.slow

CONFIG = """
save_data: run
src_vocab: vocab.src
tgt_vocab: vocab.tgt
overwrite: true
data:
  corpus_1: {path_src: train.src, path_tgt: train.tgt}
  valid: {path_src: valid.src, path_tgt: valid.tgt}
layers: 2
hidden_size: 16
word_vec_size: 16
batch_size: 8
bucket_size: 64
num_workers: 0
optim: adam
learning_rate: 0.01
valid_steps: 10
save_checkpoint_steps: 10
report_every: 10
dropout: [0.3, 0.1]
dropout_steps: [0, 10]
attention_dropout: [0.0, 0.0]
seed: 1
"""
OURS = ("-encoder_type", "sd_brnn", "-decoder_type", "sd_rnn")
STOCK = ("-encoder_type", "brnn", "-decoder_type", "rnn")
TRANSLATE = ("-src", "test.src", "-output", "out.txt", "-beam_size", "3", "-max_length", "12")
OFF = {"OPENNMT_SD_AUTOLOAD": "0"}
# What stock itself needs to read any checkpoint, where torch is 2.6 or newer.
OFF_TRANSLATES = {**OFF, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}

# The check of what is exported would be empty if stock could read the original, too.
EXPORTED_AND_THEN_OURS = """
import sys
from onmt.bin.translate import main
main()
sys.argv[2] = "ours_step_20.pt"
sys.argv[sys.argv.index("out.txt")] = "no.txt"
try:
    main()
except KeyError as error:
    print("KeyError", error)
"""


class Workshop:
    """A folder with a corpus and a config, and the installed commands run in it."""

    def __init__(self, folder: Path, python: list[str]) -> None:
        self.folder, self.python = folder, python
        draw = random.Random(0)
        for split, count in (("train", 200), ("valid", 10), ("test", 12)):
            lines = [[f"w{draw.randrange(20)}" for _ in range(draw.randint(1, 8))]
                     for _ in range(count)]  # fmt: skip
            (folder / f"{split}.src").write_text("".join(" ".join(s) + "\n" for s in lines))
            (folder / f"{split}.tgt").write_text(
                "".join(" ".join(s[::-1]).upper() + "\n" for s in lines)
            )
        (folder / "config.yaml").write_text(CONFIG)

    def command(self, name: str) -> str:
        path = Path(sys.executable).parent / name
        assert path.is_file(), f"{path} is missing: the tests run the installed commands"
        return str(path)

    def environment(self, env: dict[str, str] | None = None) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENNMT_SD", "TORCH_F"))}
        return {**kept, "OMP_NUM_THREADS": "1", **(env or {})}

    def start(self, *args: str, env: dict[str, str] | None = None, rc: int = 0) -> str:
        """Run Python to its end, in a process of its own: its output, stderr included."""
        done = subprocess.run(
            [*self.python, *args], cwd=self.folder, env=self.environment(env),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == rc, done.stdout
        return done.stdout

    def run(self, name: str, *args: str, **options: Any) -> str:
        """Run a command in a process of its own: its output."""
        return self.start(self.command(name), *args, **options)

    def here(self, name: str, *args: str) -> Any:
        """Run a command in this process, where the plugin is registered: what it returns."""
        (command,) = entry_points(group="console_scripts", name=name)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", [name, *args])
            return command.load()()

    def train(self, *args: str, name: str = "onmt_train", **options: Any) -> str:
        return self.run(name, "-config", "config.yaml", *args, **options)

    def translate(
        self, run: Callable[..., Any], *models: str, args: tuple[str, ...] = (),
        name: str = "onmt_translate", **options: Any,
    ) -> bytes:  # fmt: skip
        """Translate the test source by ``run`` or ``here``; what is written."""
        output = self.folder / "out.txt"
        output.unlink(missing_ok=True)
        run(name, "-model", *models, *TRANSLATE, *args, **options)
        return output.read_bytes()


@pytest.fixture(scope="module")
def shop(
    plugin: None, tmp_path_factory: pytest.TempPathFactory, warm_python: list[str]
) -> Workshop:
    shop = Workshop(tmp_path_factory.mktemp("pipeline"), warm_python)
    shop.here("onmt_build_vocab", "-config", "config.yaml", "-n_sample", "-1")
    return shop


@pytest.fixture(scope="module")
def trained(shop: Workshop) -> str:
    """The log of the first run; it leaves ours_step_10.pt and ours_step_20.pt."""
    own = ("-sd_output_dropout", "0.25", "-sd_recurrent_dropout", "0.125")
    shop.python, warm = [sys.executable], shop.python  # once from the very start of Python
    log = shop.train(*OURS, *own, "-train_steps", "20", "-save_model", "ours")
    shop.python = warm
    return log


@pytest.fixture(scope="module")
def translation(shop: Workshop, trained: str) -> bytes:
    return shop.translate(shop.run, "ours_step_20.pt")


def lines_of_ours(log: str) -> list[str]:
    return re.findall("opennmt_sd: (.*)", log)


def test_train_says_in_one_line_what_is_dropped(trained: str) -> None:
    (line,) = lines_of_ours(trained)
    assert line.startswith("dropout src_embedding 0.3 structured/random/exact, encoder 0.3 struct")
    output = "output 0.25 structured/random/exact/staggered"
    assert f"{output}, recurrent 0.125 structured/random/exact; engine " in line
    assert "Updated dropout/attn dropout to 0.100000 0.000000 at step 11" in trained


def test_the_checkpoint_holds_the_options(shop: Workshop, trained: str) -> None:
    opt = read(shop.folder / "ours_step_20.pt")["opt"]
    assert (opt.encoder_type, opt.decoder_type) == ("sd_brnn", "sd_rnn")
    assert (opt.sd_output_dropout, opt.sd_encoder_dropout) == (0.25, None)


def test_resume_goes_on_with_the_schedule_and_a_spawned_worker(
    shop: Workshop, trained: str
) -> None:
    log = shop.train(*OURS, "-train_steps", "30", "-save_model", "resumed", "-num_workers", "1",
                     "-train_from", "ours_step_20.pt")  # fmt: skip
    kept, schedule, dropout = lines_of_ours(log)
    assert kept.startswith("kept from the checkpoint: ")
    text = "step 21 resumes the schedule of dropout: 0.3 after step 0, 0.1 after step 10"
    assert schedule == text
    assert "encoder 0.1 structured/random/exact, " in dropout
    output = "output 0.25 structured/random/exact/staggered"
    assert f"{output}, recurrent 0.125 structured/random/exact; " in dropout
    assert read(shop.folder / "resumed_step_30.pt")["optim"]["training_step"] == 31


def test_a_stock_checkpoint_resumes_as_ours_by_our_command(shop: Workshop) -> None:
    """Without input feed, and where nothing loads by itself."""
    shop.train(*STOCK, "-train_steps", "2", "-save_model", "stock", "-input_feed", "0", env=OFF)
    log = shop.train(*OURS, "-train_steps", "4", "-save_model", "taken", "-input_feed", "0",
                     "-train_from", "stock_step_2.pt", "-override_opts",
                     name="onmt_sd_train", env=OFF)  # fmt: skip
    assert lines_of_ours(log)[-1].startswith("dropout src_embedding 0.3 structured/random/exact, ")
    stock, ours = read(shop.folder / "stock_step_2.pt"), read(shop.folder / "taken_step_4.pt")
    assert not [key for key in vars(stock["opt"]) if key.startswith("sd_")]
    assert ours["opt"].encoder_type == "sd_brnn"
    for part in ("model", "generator"):
        shapes = [{k: tuple(v.shape) for k, v in c[part].items()} for c in (stock, ours)]
        assert shapes[0] == shapes[1]
    args = ("-replace_unk",)
    assert shop.translate(shop.here, "taken_step_4.pt", args=args).count(b"\n") == 12


def test_attention_serves_translation_with_input_feed(shop: Workshop, trained: str) -> None:
    """Stock fails on all three: its attention is time first there."""
    args = ("-replace_unk", "-attn_debug", "-coverage_penalty", "wu", "-beta", "0.2")
    assert shop.translate(shop.here, "ours_step_20.pt", args=args).count(b"\n") == 12


def test_average_and_release_translate(shop: Workshop, translation: bytes) -> None:
    models = ("ours_step_10.pt", "ours_step_20.pt")
    shop.here("onmt_average_models", "-models", *models, "-output", "average.pt")
    first, second, mean = (
        read(shop.folder / name)["model"]["encoder.rnn.weight_hh_l0"]
        for name in (*models, "average.pt")
    )
    torch.testing.assert_close(mean, (first + second) / 2)
    shop.here("onmt_release_model", "--model", "ours_step_20.pt", "--output", "released.pt")
    assert read(shop.folder / "released.pt")["optim"] is None
    # The commands of ours do the same, also where nothing loads by itself.
    command = {"name": "onmt_sd_translate", "env": OFF}
    assert shop.translate(shop.run, "released.pt", **command) == translation
    # An ensemble loads models on a way of its own; a model of stock, of another cell, may be in it.
    shop.here("onmt_train", "-config", "config.yaml", *STOCK, "-rnn_type", "GRU",
              "-train_steps", "2", "-save_model", "fed")  # fmt: skip
    for models in (("average.pt", "ours_step_20.pt"), ("fed_step_2.pt", "ours_step_20.pt")):
        out = shop.translate(shop.here, *models, args=("-replace_unk",))
        assert out.count(b"\n") == 12


def test_export_translates_to_the_same_bytes_without_the_plugin(
    shop: Workshop, translation: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert translation.count(b"\n") == 12
    capsys.readouterr()
    assert shop.here("opennmt_sd", "export", "ours_step_20.pt") == 0
    assert capsys.readouterr().out == "ours_step_20.stock.pt\n"
    (shop.folder / "out.txt").unlink()
    said = shop.start(
        "-c", EXPORTED_AND_THEN_OURS, "-model", "ours_step_20.stock.pt", *TRANSLATE,
        env=OFF_TRANSLATES,
    )  # fmt: skip
    assert (shop.folder / "out.txt").read_bytes() == translation
    assert said.endswith("KeyError 'sd_brnn'\n")


def test_faults_come_before_any_data_is_read(shop: Workshop) -> None:
    log = shop.train(*OURS, "-dropout", "1.7", "0.1", "-sd_patern", "x",
                     "-src_vocab", "missing", rc=2)  # fmt: skip
    assert "onmt_train: error: 2 faults in the options:" in log
    for text in ("sd_patern is no option: did you mean sd_space?", "dropout 1.7 is outside [0, 1)"):
        assert text in log
    assert not {"Traceback", "usage:"} & set(log.split())


def test_the_server_answers(shop: Workshop, translation: bytes) -> None:
    models = [{"id": 7, "model": "ours_step_20.pt", "load": True, "timeout": -1,
               "opt": {"gpu": -1, "beam_size": 3, "max_length": 12}}]  # fmt: skip
    (shop.folder / "server.json").write_text(json.dumps({"models_root": ".", "models": models}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*shop.python, shop.command("onmt_server"), "--ip", "127.0.0.1", "--port", str(port),
               "--model_config", "server.json"]  # fmt: skip
    log = shop.folder / "server.log"
    with log.open("w") as out:
        server = subprocess.Popen(command, cwd=shop.folder, env=shop.environment(), stdout=out,
                                  stderr=subprocess.STDOUT)  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}/translator"
        wait_for(lambda: ask(f"{url}/health") == {"status": "ok"}, server, log)
        source = (shop.folder / "test.src").read_text().splitlines()[0]
        ((answer,),) = ask(f"{url}/translate", [{"id": 7, "src": source}])
        assert answer["tgt"] == translation.decode().splitlines()[0]
    finally:
        server.terminate()
        server.wait(timeout=30)


def ask(url: str, data: Any = None) -> Any:
    body = None if data is None else json.dumps(data).encode()
    with urllib.request.urlopen(url, body, timeout=60) as reply:
        return json.load(reply)


def wait_for(ready: Callable[[], bool], server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            if ready():
                return
        except urllib.error.URLError:
            time.sleep(0.2)
    pytest.fail(f"the server did not start:\n{log.read_text()}")
