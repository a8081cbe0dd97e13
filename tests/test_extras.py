"""What an extra brings and is not there is named, with its remedy, in programs of one's own too."""

from __future__ import annotations

import pytest

CODE = """
import sys
for name in {{"{package}", *(n for n in sys.modules if n.startswith("{package}."))}}:
    sys.modules[name] = None  # as if it were not installed
try:
    {use}
except ModuleNotFoundError as error:
    print(error)
"""
CURVES = "plot_curves(None, None, measure='', score='', mode='')"


@pytest.mark.parametrize(
    ("extra", "package", "use"),
    [
        ("tagger", "torchcrf", "import opennmt_sd.tagger.trained"),
        ("tagger", "torchcrf", "from opennmt_sd.tagger.model import Tagger"),
        ("tagger", "seqeval", "from opennmt_sd.tagger.schemes import entities; entities(['O'])"),
        ("tagger", "spacy", "import opennmt_sd.tagger.spacy"),
        ("train", "lightning_fabric", "import opennmt_sd.recipes.training"),
        ("train", "matplotlib", f"from opennmt_sd.training.plots import plot_curves; {CURVES}"),
    ],
)
def test_a_missing_package_is_named(run_warm, extra: str, package: str, use: str) -> None:
    done = run_warm("-c", CODE.format(package=package, use=use))
    assert (done.stdout, done.stderr) == (
        f"the package {package} is missing: pip install 'opennmt_sd[{extra}]'\n",
        "",
    )
