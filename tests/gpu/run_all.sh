#!/usr/bin/env bash
# Everything that needs a real GPU, in under twelve minutes: first_run.sh, then second_run.sh, each with a table and an archive
# of results after every stage. A failure ends neither. Exit status 1 where a stage of either failed.
#   tests/gpu/run_all.sh [--build] [OPTIONS of both: first_run.sh --help]
#   --build    cmake and build first, in build (needs nvcc and the packages of launch/packages.sh)
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
case ${1:-} in
  --help|-h) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
  --build)
    shift
    { cmake -S "$root" -B "$root/build" -G Ninja -DVQLM_CUDA=ON &&
        cmake --build "$root/build" --target vqlm cuda_tests nccl_ranks_native
    } >"$root/build.log" 2>&1 || { tail -20 "$root/build.log"; exit 1; }
    mv "$root/build.log" "$root/build/gpu-build.log" ;;
esac
status=0
for run in first_run second_run; do
  "$here/$run.sh" "$@" || status=1
done
exit $status
