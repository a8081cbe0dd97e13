"""The spaCy project: its commands, with a tagger that is hardly trained."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

spacy = pytest.importorskip("spacy", reason="the example needs spaCy")
pytest.importorskip("weasel", reason="spacy project needs weasel")
pytest.importorskip("hydra", reason="hydra-core is not installed")

PROJECT = Path(__file__).parents[2] / "examples" / "spacy_project"
TINY = "trainer.max_updates=1 trainer.accelerator=cpu trainer.test=false model.hidden=4"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(warm_python: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which the whole workflow has run."""
    folder = tmp_path_factory.mktemp("example") / "spacy_project"
    shutil.copytree(PROJECT, folder)
    done = subprocess.run(
        [*warm_python, "-m", "spacy", "project", "run", "all", folder, "--vars.training", TINY],
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_package_loads_and_names_what_it_needs(project: Path) -> None:
    package = project / "packages" / "en_names-1.0.0"
    needs = json.loads((package / "meta.json").read_text())["requirements"]
    assert sum(need.startswith("opennmt_sd[tagger]>=") for need in needs) == 1
    shutil.rmtree(project / "pipeline")
    nlp = spacy.load(package / "en_names" / "en_names-1.0.0")
    assert ("OpenNMT", "product") in [(e.text, e.label_) for e in nlp("I like OpenNMT.").ents]
    for file in package.rglob("*"):
        assert file.is_dir() or str(project).encode() not in file.read_bytes(), file


def test_spacy_train_leaves_the_tagger_as_it_is(project: Path, monkeypatch) -> None:
    """The commands of "categories", in this process."""
    from spacy.cli.init_config import fill_config
    from spacy.cli.train import train

    monkeypatch.chdir(project)
    runpy.run_path("texts.py")["main"]("texts.spacy")
    fill_config(Path("corpus.cfg"), Path("categories.cfg"), silent=True)
    tagger = "runs/tagger/spacy_project"
    paths = {"train": "texts.spacy", "dev": "texts.spacy", "tagger": tagger}
    settings = {f"paths.{name}": path for name, path in paths.items()}
    train("corpus.cfg", "categories", overrides={**settings, "training.max_steps": 2})
    nlp = spacy.load("categories/model-best")
    assert nlp.pipe_names == ["sentencizer", "structured_ner", "textcat"]
    assert set(nlp("We flew to Rome.").cats) == {"travel", "things"}
    before = torch.load(f"{tagger}/tagger.pt", weights_only=True)["model"]
    after = nlp.get_pipe("structured_ner").trained.model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
