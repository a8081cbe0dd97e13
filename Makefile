# make quickstart   train a small translator with structured dropout, translate, print BLEU
# make quickstart-eole   the same by Eole, in .venv-eole
# make test         the tests, on up to four cores, but those that are marked as slow; ARGS=... for pytest
# make test-all     all tests: builds, compiled models, trainings by every door besides
# make lint         ruff, clang-format and mypy
# make check-packaging   the tests of the wheel, with a native module: some minutes of compiling
# make docs         the documentation site, into site/; a broken link ends it
# make setup        .venv with everything in it; only what changed is done again
# make rebuild      build the package again, e.g. after a C++ compiler was installed
# make wheel        dist/*.whl
# make clean        remove .venv and all that is built (not runs/)
#
# PYTHON  the Python to make .venv with
# TORCH   the torch to put into it; without a GPU, a far smaller one is
#         make TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
PYTHON = python3
TORCH = torch==2.13.0
ARGS =
TESTS = -m "not slow"

NATIVE = $(wildcard opennmt_sd/ops/cpu/native/*.cpp opennmt_sd/ops/cpu/native/*.h)
PIP = .venv/bin/python -m pip --disable-pip-version-check
SOURCES = pyproject.toml CMakeLists.txt cmake/native.cmake opennmt_sd/_autoload.py $(wildcard autoload/* opennmt_sd/ops/cpu/native/*)

.PHONY: setup quickstart quickstart-eole test test-all check-packaging lint docs rebuild wheel clean
.DEFAULT_GOAL = setup

quickstart: setup
	.venv/bin/opennmt_sd quickstart

SAMPLE = opennmt_sd/data/tatoeba-de-en
EOLE_RUN = runs/eole-quickstart

quickstart-eole: .venv-eole/.done
	.venv-eole/bin/eole train --config conf/eole/quickstart.yaml
	.venv-eole/bin/eole predict --model_path $(EOLE_RUN)/step_800 --beam_size 5 --src $(SAMPLE)/test.de \
	  --output $(EOLE_RUN)/test.hyp.en
	.venv-eole/bin/sacrebleu $(SAMPLE)/test.en -i $(EOLE_RUN)/test.hyp.en

.venv-eole/.done: pyproject.toml
	"$(PYTHON)" -m venv .venv-eole
	.venv-eole/bin/python -m pip --disable-pip-version-check install $(TORCH)
	.venv-eole/bin/python -m pip --disable-pip-version-check install --editable ".[eole]"
	@touch $@

# Several workers share the cores: one thread each, and where a test asks for more of them, no
# waiting by spinning. What pytest compiles is kept, also where other commands are told not to.
test: setup
	env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive \
	  .venv/bin/python -m pytest --numprocesses=auto --maxprocesses=4 \
	  --dist=loadfile --no-loadscope-reorder $(TESTS) $(ARGS)

test-all:
	$(MAKE) test TESTS=

check-packaging: setup
	scripts/check_packaging.sh

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check --quiet .
	.venv/bin/clang-format --style=file --dry-run -Werror $(NATIVE)
	.venv/bin/mypy

docs: .venv-docs/.done
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict
	@echo "look at it: .venv-docs/bin/python -m http.server --directory site"

setup: .venv/.package

rebuild:
	rm -f .venv/.package
	$(MAKE) setup

wheel: setup
	$(PIP) wheel --no-build-isolation --no-deps --wheel-dir dist .

clean:
	rm -rf .venv .venv-docs .venv-eole build dist site .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each step leaves its stamp last: one that was interrupted is done again.
# A .venv holds its own path, so that of a moved checkout is made anew.
ifneq ($(shell cat .venv/.python 2>/dev/null),$(CURDIR))
.PHONY: .venv/.python
endif

.venv/.python:
	@echo "== 1/4 .venv, with $(PYTHON)"
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "There is no '$(PYTHON)'. Name a Python 3.10, 3.11 or 3.12: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 12) or sys.exit( \
	  f"{sys.executable} is Python {v[0]}.{v[1]}, but OpenNMT-py needs pyonmttok and fasttext-wheel, whose wheels " \
	  "are for Python 3.10, 3.11 and 3.12 only. Name one of these: make PYTHON=/path/to/python3.12")'
	"$(PYTHON)" -m venv --clear .venv
	@echo "$(CURDIR)" > $@

.venv/.torch: .venv/.python
	@echo "== 2/4 $(TORCH)"
	$(PIP) install $(TORCH)
	@touch $@

.venv/.lock: .venv/.torch requirements.lock
	@echo "== 3/4 OpenNMT-py and the rest of requirements.lock"
	$(PIP) install --no-deps -r requirements.lock
	@touch $@

.venv-docs/.done: docs/requirements.txt
	"$(PYTHON)" -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip --disable-pip-version-check install --quiet -r docs/requirements.txt
	@touch $@

.venv/.package: .venv/.lock $(SOURCES)
	@echo "== 4/4 opennmt_sd"
	$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@
