#!/usr/bin/env bash
# Fuzzes for real: every target for some time, one at a time, in the background's priority.
#   tests/fuzz/run.sh [SECONDS_PER_TARGET] [TARGET...]      (default 450: about an hour for all)
# What it finds is kept in build/fuzz-clang/found/TARGET and used again; an input that breaks a target is left as
# build/fuzz-clang/TARGET-crash-..., and belongs into corpus/TARGET once the fault is mended.
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=${VQLM_FUZZ_BUILD:-$source_dir/../../build/fuzz-clang}
seconds=${1:-450}
targets=("${@:2}")
command -v clang++ >/dev/null || { echo "fuzz: needs clang++ and its libFuzzer: apt-get install clang libclang-rt-14-dev" >&2; exit 2; }
if [ ${#targets[@]} -eq 0 ]; then
  for folder in "$source_dir"/corpus/*/; do targets+=("$(basename "$folder")"); done
fi
mkdir -p "$build"
cmake -S "$source_dir" -B "$build" -G Ninja -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ >"$build/configure.log"
cmake --build "$build"
failed=0
for target in "${targets[@]}"; do
  mkdir -p "$build/found/$target"
  echo "fuzz: $target"
  nice -n 19 "$build/$target" "-max_total_time=$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 \
    "-artifact_prefix=$build/$target-" -print_final_stats=1 "$build/found/$target" "$source_dir/corpus/$target" \
    >"$build/$target.log" 2>&1 || { failed=1; echo "fuzz: $target: see $build/$target.log"; }
  grep -E "stat::number_of_executed_units|SUMMARY| DONE " "$build/$target.log" || true
done
exit $failed
