#!/usr/bin/env bash
# Build the native module under AddressSanitizer and UndefinedBehaviorSanitizer, in a folder of its
# own, and run the tests that reach the kernels with it, once for each instruction set of this
# machine. Any report fails the check: torch and Python are not instrumented, so there is no noise
# to leave out (leaks are not looked for: Python itself "leaks" what it keeps until it ends).
#
#   scripts/check_sanitizers.sh [ISA..]      default: avx512 avx2 baseline
#
# Scratch memory is poisoned around and between uses, and filled with NaN (memory.cpp).
# PYTHON: a Python with the package and its test tools, default .venv/bin/python. TESTS: what to
# run, default tests/ops tests/nn. Needs g++ 11; about 6 minutes, most of it tests.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
build=$PWD/build/sanitizers
read -ra tests <<< "${TESTS:-tests/ops tests/nn}"
(($#)) || set -- avx512 avx2 baseline

echo "== build"
mkdir -p "$build"
nanobind=$("$python" -m nanobind --cmake_dir)/..
flags=(-std=c++17 -g1 -O1 -fPIC -fvisibility=hidden -fno-strict-aliasing -fopenmp
  -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
  -I"$nanobind/include" -I"$nanobind/ext/robin_map/include"
  -I"$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')")
sources=opennmt_sd/ops/cpu/native
objects=()
compile() { # object source flag..
  objects+=("$build/$1.o")
  local source
  for source in scripts/check_sanitizers.sh "$2" $sources/*.h; do
    [ "$build/$1.o" -nt "$source" ] && continue
    g++ "${flags[@]}" "${@:3}" -c "$2" -o "$build/$1.o"
    return
  done
}
# nanobind's own code as it is: what Python does with it is not what is looked at.
compile nanobind "$nanobind/src/nb_combined.cpp" -DNDEBUG -fno-sanitize=all
for source in $sources/*.cpp; do
  [[ $source == */kernels.cpp || $source == */bfloat16.cpp ]] ||
    compile "$(basename "$source" .cpp)" "$source" '-DOPENNMT_SD_COMPILER="GNU with sanitizers"'
done
while read -r isa march; do
  flags_of_isa=(-march="$march" -ffp-contract=fast -Wno-uninitialized)
  compile "$isa" $sources/kernels.cpp -DSD_ISA=isa_"$isa" "${flags_of_isa[@]}"
  compile "bfloat16_$isa" $sources/bfloat16.cpp -DSD_TABLE=bfloat16_"$isa" "${flags_of_isa[@]}"
done <<< "avx512 x86-64-v4
avx2 x86-64-v3
baseline x86-64"
g++ -shared -fopenmp -fsanitize=address,undefined "${objects[@]}" -o "$build/_native.so"

# Python finds this module before the installed one, in every process that the tests start too.
cat > "$build/sitecustomize.py" << 'PY'
import importlib.util, os, sys

class Sanitized:
    def find_spec(self, name, path=None, target=None):
        if name == "opennmt_sd.ops.cpu._native":
            here = os.path.dirname(__file__)
            return importlib.util.spec_from_file_location(name, os.path.join(here, "_native.so"))

sys.meta_path.insert(0, Sanitized())
PY

export PYTHONPATH=$build OMP_WAIT_POLICY=passive
runtime=$(g++ -print-file-name=libasan.so):$(g++ -print-file-name=libstdc++.so.6)
failed=0
for isa in "$@"; do
  export OPENNMT_SD_SIMD=$isa
  echo "== $isa"
  rm -f "$build"/report.*
  sanitized() {
    env LD_PRELOAD="$runtime" \
      ASAN_OPTIONS="detect_leaks=0:log_path=$build/report:detect_stack_use_after_return=1:max_malloc_fill_size=1073741824:malloc_fill_byte=255" \
      UBSAN_OPTIONS="print_stacktrace=1:log_path=$build/report" "$python" "$@"
  }
  level=$(sanitized -c 'from opennmt_sd.ops.cpu import require_native as m; print(m().compiler, m().simd_level())')
  if [ "$level" != "GNU with sanitizers $isa" ]; then
    echo "left out: this machine runs '$level'"
    continue
  fi
  sanitized -m pytest -q -p no:cacheprovider -k 'not portable' "${tests[@]}" || failed=1
  for report in "$build"/report.*; do
    [ -e "$report" ] || continue
    failed=1
    echo "-- $report"
    head -n 60 "$report"
  done
done
((failed == 0)) && echo "== no report, all tests passed"
exit $failed
