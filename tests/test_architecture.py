"""Who may know whom, over every import statement of the package, and how quick its import is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import opennmt_sd

ROOT = Path(__file__).parents[1] / "opennmt_sd"

# part: the parts it may import besides itself
KNOWS: dict[str, set[str]] = {
    "compat": set(),  # what is private of torch
    "_compile": {"compat"},  # decorators around torch.compiler.disable
    "dropout": {"_compile", "compat"},
    "ops": {"_compile", "atomic", "compat", "dropout"},
    "nn": {"_compile", "compat", "ops", "dropout"},
    "seq2seq": {"compat", "nn", "ops", "dropout"},
    "onmt": {"_autoload", "archive", "atomic", "compat", "seq2seq", "nn", "ops", "dropout"},
    "eole": {"seq2seq", "nn", "ops", "dropout"},
    "lm": {"atomic", "nn", "ops", "dropout", "training", "data"},
    "tagger": {"atomic", "compat", "extras", "nn", "ops", "dropout", "training", "data"},
    "training": {"archive", "atomic", "compat", "extras", "nn", "ops", "dropout"},
    "config": {"conf", "training", "ops"},  # the last two: checks.py alone
    "recipes": {"config", "lm", "tagger", "training", "data"}
    | {"atomic", "extras"}
    | {"nn", "ops", "dropout"},
    "data": set(),
    "conf": set(),
    "archive": {"compat", "unpickling"},
    "atomic": set(),
    "extras": set(),
    "unpickling": {"compat"},
    "__main__": {"cli"},
    "_autoload": {"onmt", "eole"},
    "_boot": {"_autoload"},
    "__init__": {"nn", "ops", "dropout"},  # lazily: the public names
}
KNOWS["benchmark"] = set(KNOWS)  # it measures every part
KNOWS["cli"] = set(KNOWS)  # the front door

# foreign package: the places that may import it
HOMES = {
    "onmt": ("onmt", "benchmark/translator"),
    "eole": ("eole", "benchmark/eole_translator"),
    "spacy": ("tagger/spacy",),
    "hydra": ("cli", "config", "recipes"),
    "omegaconf": ("cli", "config", "recipes"),
}


def _part(path: Path) -> str:
    """`opennmt_sd/ops/naive/lstm.py` -> ops, `opennmt_sd/atomic.py` -> atomic."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imports(source: str, package: str) -> Iterator[tuple[int, str]]:
    """(line, full dotted name) of everything that is imported in a file of the package."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            module = ".".join([*(base if node.level else []), *filter(None, [node.module])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def _target(name: str) -> str:
    """The part of opennmt_sd that a dotted name belongs to."""
    part = name.split(".")[1] if "." in name else "__init__"
    return part if part in KNOWS else "__init__"


def faults(path: Path, source: str) -> list[str]:
    """What the imports of one file break, a line each."""
    place = path.relative_to(ROOT).as_posix()
    package = ".".join(["opennmt_sd", *path.relative_to(ROOT).parent.parts])
    part, found = _part(path), []
    for line, name in _imports(source, package):
        top = name.split(".")[0]
        if top == "opennmt_sd":
            target = _target(name)
            if target != part and target not in KNOWS[part]:
                found.append(f"{place}:{line}: {part} may not know {target} ({name})")
        elif top in HOMES:
            homes = HOMES[top]
            if not place.startswith(tuple(home + end for home in homes for end in ("/", ".py"))):
                found.append(f"{place}:{line}: only {', '.join(homes)} may import {top}")
    return found


FILES = sorted(
    path for path in ROOT.rglob("*.py") if "__pycache__" not in path.parts and _part(path) != "conf"
)


def test_every_part_has_its_rule() -> None:
    assert {_part(path) for path in FILES} <= KNOWS.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_keep_the_rules(path: Path) -> None:
    assert faults(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("place", "source", "fault"),
    [
        ("dropout/keep.py", "import opennmt_sd.ops", "dropout may not know ops"),
        ("ops/naive/lstm.py", "from opennmt_sd import nn", "ops may not know nn"),
        ("ops/naive/lstm.py", "from ...nn.lstm import StructuredLSTM", "ops may not know nn"),
        ("ops/cpu/__init__.py", "from ...nn import lstm", "ops may not know nn"),
        ("nn/lstm.py", "from opennmt_sd import MaskedLinear", "nn may not know __init__"),
        (
            "nn/lstm.py",
            "def f():\n    import onmt",
            "only onmt, benchmark/translator may import onmt",
        ),
        ("lm/model.py", "from opennmt_sd.tagger import model", "lm may not know tagger"),
        ("eole/loss.py", "from opennmt_sd.onmt import loss", "eole may not know onmt"),
        ("onmt/loss.py", "from opennmt_sd.eole import loss", "onmt may not know eole"),
        ("seq2seq/loss.py", "from opennmt_sd.onmt import loss", "seq2seq may not know onmt"),
        ("seq2seq/loss.py", "import eole", "only eole, benchmark/eole_translator may import eole"),
        ("training/loop.py", "import opennmt_sd.lm", "training may not know lm"),
        ("tagger/model.py", "import spacy", "only tagger/spacy may import spacy"),
        ("lm/model.py", "from omegaconf import DictConfig", "only cli, config, recipes may"),
    ],
)
def test_a_broken_rule_is_seen(place: str, source: str, fault: str) -> None:
    assert [fault in found for found in faults(ROOT / place, source)] == [True]


def test_import_is_light(run_python) -> None:
    code = (
        "import sys, opennmt_sd\n"
        "heavy = ['torch', 'numpy', 'onmt', 'spacy', 'hydra', 'omegaconf', 'typing']\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    # Without the files that site-packages runs at a start: they are not ours.
    done = run_python("-S", "-c", code, PYTHONPATH=str(ROOT.parent))
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.slow
def test_public_names_need_torch_alone(run_python) -> None:
    code = (
        "import sys, opennmt_sd\n"
        "sys.modules.update(dict.fromkeys(['onmt', 'spacy', 'hydra', 'omegaconf', 'sacrebleu']))\n"
        "for name in opennmt_sd.__all__: getattr(opennmt_sd, name)\n"
        "from opennmt_sd import *\n"
        "print(StructuredLSTM.__name__, ops.__name__)"
    )
    done = run_python("-W", "error", "-c", code)
    assert done.stdout == "StructuredLSTM opennmt_sd.ops\n", done.stderr


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'opennmt_sd' has no attribute 'LSTM'"):
        opennmt_sd.LSTM  # noqa: B018 - the access is the test
    assert {"StructuredLSTM", "ops", "__version__"} <= set(dir(opennmt_sd))
