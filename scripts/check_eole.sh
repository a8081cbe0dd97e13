#!/usr/bin/env bash
# Check the plugin for Eole, in a venv of its own: Eole's versions are not those of OpenNMT-py.
# Installs the package with its extra [eole], runs the tests of what plugins share and of this one,
# then trains 60 steps with the stock command, resumes for 20, and translates, with the plugin and
# without it: the same bytes.
#
#   scripts/check_eole.sh [VENV]        VENV: where to make it; default .venv-eole
#
# About 5 GB of disk and 5 minutes. PYTHON names the Python (3.11 or 3.12), default python3. TORCH
# names the torch, default 2.13.0 from PyPI.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv-eole}

echo "== install"
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
pip="$venv/bin/python -m pip --disable-pip-version-check install --quiet"
# shellcheck disable=SC2086  # TORCH may hold options
"$venv/bin/python" -c "import torch" 2>/dev/null || $pip ${TORCH:-torch==2.13.0}
$pip ".[eole]" pytest pytest-timeout

echo "== tests of what plugins share and of Eole's"
# From another folder, so that the installed package is tested and not the checkout.
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bin=$(cd "$venv/bin" && pwd)
cd "$work"
"$bin/python" -m pytest --import-mode=importlib -q -p no:cacheprovider --rootdir "$root" \
  -c "$root/pyproject.toml" "$root/tests/seq2seq" "$root/tests/eole"

echo "== train 60 steps, resume for 20, translate"
mkdir -p opennmt_sd && ln -s "$root/opennmt_sd/data" opennmt_sd/data # the paths in the config
model=runs/eole-quickstart
sed 's/train_steps: 800/train_steps: 60/' "$root/conf/eole/quickstart.yaml" > first.yaml
sed "s/train_steps: 800/train_steps: 80\n  train_from: $(printf %s "$model/step_60" | sed 's,/,\\/,g')/" \
  "$root/conf/eole/quickstart.yaml" > second.yaml
"$bin/eole" train --config first.yaml 2>&1 | tee train.log
grep -q "opennmt_sd: dropout src_embedding 0.3 structured/random" train.log
"$bin/eole" train --config second.yaml 2>&1 | tee resume.log
grep -q "opennmt_sd: dropout src_embedding 0.3 structured/random" resume.log
head -n 20 "$root/opennmt_sd/data/tatoeba-de-en/test.de" > test.de
for switch in 1 0; do
  OPENNMT_SD_AUTOLOAD=$switch "$bin/eole" predict --model_path "$model/step_80" --beam_size 4 \
    --src test.de --output "test.$switch"
done
[ "$(wc -l < test.1)" -eq 20 ] || { echo "expected 20 translations, got $(wc -l < test.1)" >&2; exit 1; }
cmp test.0 test.1
echo "== Eole works with the plugin, and reads its checkpoints without it"
