#!/usr/bin/env bash
# The tests of the wheel, on one with the native module: what a user with a C++ compiler installs.
# `make test` asks the same of a wheel without, which takes no minute of compiling.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
OPENNMT_SD_NATIVE_WHEEL=1 OMP_WAIT_POLICY=passive \
  exec .venv/bin/python -m pytest tests/test_packaging.py "$@"
