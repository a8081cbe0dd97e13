#!/usr/bin/env bash
# Check the recipes of docs/elsewhere.md, of flair, fastai, stanza, Lightning and Hugging Face, in a
# venv of their own.
#
#   scripts/check_elsewhere.sh [VENV]     VENV: where to make it; default .venv-elsewhere
#
# About 3 GB of disk and 5 minutes. PYTHON names the Python (3.10 to 3.12), default python3; TORCH the
# torch.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv-elsewhere}
torch=${TORCH:-torch==2.13.0}

echo "== install"
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
pip() { "$venv/bin/python" -m pip install --quiet "$@"; }
# flair asks for transformers below 5; one after the other, or pip tries all versions of each.
pip "$torch" lightning "transformers>=4.40,<5" accelerate pytest pytest-timeout
pip "$torch" "transformers<5" flair==0.15.1
pip "$torch" fastai==2.8.12
pip "$torch" stanza==1.15.0
# fastai brings it for pictures; without a GPU its build may not fit torch's, and flair imports it.
"$venv/bin/python" -m pip uninstall --quiet --yes torchvision
pip .

echo "== tests"
# From another folder, so that the installed package is tested and not the checkout.
tests=$PWD/tests
bin=$(cd "$venv/bin" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"$bin/python" -m pytest --import-mode=importlib -q -p no:cacheprovider --rootdir "$tests/.." \
  --strict-markers -rs "$tests/elsewhere"
echo "== the recipes work"
