#!/usr/bin/env bash
# Check the kernels of Triton's, on a machine without a GPU: in Triton's interpreter against the naive
# engine, each in a process that is told so from its start; then compiled for sm_80 and sm_90.
#
#   scripts/check_triton.sh [VENV]      VENV: with opennmt_sd, pytest and Triton; default .venv, where
#                                       Triton is installed if it is missing (190 MB)
#
# TRITON names what is installed; default triton==3.6.0. About 3 minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
"$venv/bin/python" -c "import triton" 2>/dev/null ||
  "$venv/bin/python" -m pip --disable-pip-version-check install --quiet "${TRITON:-triton==3.6.0}"

echo "== in the interpreter"
TRITON_INTERPRET=1 "$venv/bin/python" -m pytest -q -p no:cacheprovider tests/ops/triton
echo "== compiled"
"$venv/bin/python" -m pytest -q -p no:cacheprovider tests/ops/triton/test_compiled.py
echo "== Triton's kernels compute what they should, and compile"
