"""What an extra brings and is not there is named, with its remedy, in programs of one's own too."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
sys.modules["{package}"] = None  # as if it were not installed
try:
    {use}
except ModuleNotFoundError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("package", "use"),
    [
        ("torchcrf", "import opennmt_sd.tagger.trained"),
        ("torchcrf", "from opennmt_sd.tagger.model import Tagger"),
        ("seqeval", "from opennmt_sd.tagger.schemes import entities; entities(['O'])"),
        ("spacy", "import opennmt_sd.tagger.spacy"),
    ],
)
def test_a_missing_package_is_named(package: str, use: str) -> None:
    code = CODE.format(package=package, use=use)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (
        f"the package {package} is missing: pip install 'opennmt_sd[tagger]'\n",
        "",
    )
