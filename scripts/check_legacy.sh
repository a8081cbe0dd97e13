#!/usr/bin/env bash
# Check the legacy stack: opennmt-py as pip resolves it (torch 2.2.2, numpy < 2), in a venv of its
# own. Installs the package with its extra [onmt], runs the tests of the ops, the modules and what
# plugins share, then trains 50 steps with the stock commands, resumes for 10, and translates.
#
#   scripts/check_legacy.sh [VENV]        VENV: where to make it; default .venv-legacy
#
# About 6 GB of disk and 5 minutes. PYTHON names the Python (3.10 to 3.12), default python3.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv-legacy}

echo "== install (torch 2.2.2 comes as a CUDA build)"
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet ".[onmt]" pytest pytest-timeout
"$venv/bin/python" - <<'PY'
import numpy, torch
assert torch.__version__.startswith("2.2."), f"expected torch 2.2, got {torch.__version__}"
assert numpy.__version__.startswith("1."), f"expected numpy 1, got {numpy.__version__}"
PY

echo "== tests of the patterns, ops and modules"
# From another folder, so that the installed package is tested and not the checkout.
tests=$PWD/tests
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bin=$(cd "$venv/bin" && pwd)
conf=$PWD/conf/onmt/quickstart.yaml
sample=$PWD/opennmt_sd/data/tatoeba-de-en
cd "$work"
"$bin/python" -m pytest --import-mode=importlib -q -p no:cacheprovider --rootdir "$tests/.." \
  "$tests/dropout" "$tests/ops" "$tests/nn" "$tests/seq2seq"

echo "== train 50 steps, resume for 10, translate"
mkdir -p opennmt_sd && ln -s "$sample/.." opennmt_sd/data # the paths in the config
"$bin/onmt_train" -config "$conf" -train_steps 50 -save_checkpoint_steps 50 -valid_steps 50
checkpoint=$(find runs -name '*_step_50.pt')
"$bin/onmt_train" -config "$conf" -train_from "$checkpoint" -train_steps 60 \
  -save_checkpoint_steps 60 -valid_steps 60
head -n 20 "$sample/test.de" > test.de
"$bin/onmt_translate" -model "$(find runs -name '*_step_60.pt')" -src test.de -output test.out
[ "$(wc -l < test.out)" -eq 20 ] || { echo "expected 20 translations, see $work/test.out" >&2; exit 1; }
echo "== the legacy stack works"
