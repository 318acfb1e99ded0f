#!/usr/bin/env bash
# Packs programs into one archive of at most 60 MiB for a bare GPU machine: CUDA's libraries (CUDA 13 in /usr/local/cuda, or a
# Python's nvidia/* wheels) and a glibc no older than here, but no MPI, HDF5 or SentencePiece.
#   tests/gpu/bundle.sh OUT PROGRAM... [-- SHARD...]
#   cmake -S . -B build-card -G Ninja -DVQLM_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=90a-real    # an H100's or H200's code alone
#   cmake --build build-card --target vqlm_alone cuda_tests nccl_ranks_alone
#   tests/gpu/bundle.sh build/bundle build-card/{vqlm_alone,cuda_tests,nccl_ranks_alone} -- shards/*.h5
# makes build/bundle and build/bundle.tar.xz. On the card:
#   tar xJf bundle.tar.xz (or python3 -m tarfile -e bundle.tar.xz) && bundle/tests/gpu/run_all.sh
# bin: the programs, stripped, vqlm_alone as vqlm; lib: what they link; shards: the SHARDs; and what the runs read: scripts,
# configurations, PyTorch peers. run.sh PROGRAM ... finds the libraries, those of wheels by PYTHON (python3). glibc and CUDA's
# libraries are the other machine's.
# LIMIT_MIB (60) and XZ_OPT (-6 -T0) may be set.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out=$1; shift
programs=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do programs+=("$1"); shift; done
[ $# -eq 0 ] || shift
limit=$((${LIMIT_MIB:-60} << 20))
theirs='/(ld-linux[^/]*|lib(c|m|dl|pthread|rt|resolv|util|cuda|cudart|cublas|cublasLt|nccl|nvrtc|nvJitLink))[.-][^/]*$'

rm -rf "$out" "$out.tar.xz"
mkdir -p "$out/bin" "$out/lib" "$out/shards" "$out/tests/bench"
out=$(cd "$out" && pwd)
for program in "${programs[@]}"; do
  [ -x "$program" ] || { echo "bundle.sh: no program $program; build it first" >&2; exit 1; }
  name=$(basename "$program")
  case $name in nccl_ranks_alone) name=nccl_ranks_native ;; *_alone) name=${name%_alone} ;; esac
  strip -o "$out/bin/$name" "$program"
  links=$(ldd "$program")
  if missing=$(grep 'not found' <<<"$links"); then echo "bundle.sh: $program: $missing" >&2; exit 1; fi
  if mpi=$(grep -o 'lib\(mpi\|open-rte\|pmix\)[^ ]*' <<<"$links" | head -1) && [ -n "$mpi" ]; then
    echo "bundle.sh: $program links $mpi, which the other machine lacks; take vqlm_alone, nccl_ranks_alone" >&2; exit 1
  fi
  awk '$2 == "=>" && $3 ~ /^\// {print $3}' <<<"$links"
done | sort -u | grep -vE "$theirs" | while read -r library; do
  cp -L "$library" "$out/lib/"
  strip --strip-unneeded "$out/lib/$(basename "$library")"
done
[ $# -eq 0 ] || cp -L "$@" "$out/shards/"
cp -r "$root/configs" "$root/docs" "$out/"
cp -r "$root/tests/gpu" "$out/tests/"
cp "$root"/tests/bench/peer*.py "$out/tests/bench/"

cat >"$out/run.sh" <<'RUN'
#!/bin/sh
# run.sh PROGRAM ARGUMENTS...
here=$(cd "$(dirname "$0")" && pwd)
nvidia=$("${PYTHON:-python3}" -c '
import glob, nvidia
print(":".join(sum((glob.glob(path + "/*/lib") for path in nvidia.__path__), [])))' 2>/dev/null)
cuda=/usr/local/cuda/lib64:/usr/local/cuda/lib${nvidia:+:$nvidia}
export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}:$cuda"
exec "$@"
RUN
chmod +x "$out/run.sh"
XZ_OPT=${XZ_OPT:--6 -T0} tar -cJf "$out.tar.xz" -C "$(dirname "$out")" "$(basename "$out")"
size=$(stat -c %s "$out.tar.xz")
mib=$((size >> 20)).$(((size & 1048575) * 10 >> 20))
echo "$out.tar.xz: $mib MiB of at most $((limit >> 20)); unpacked $(du -sm "$out" | cut -f1) MiB"
[ "$size" -le "$limit" ] || {
  echo "bundle.sh: too large for the way to the card; the largest files, in bytes (fewer shards, one GPU architecture):" >&2
  (cd "$out" && find . -type f -printf '%s %P\n' | sort -rn | sed -n 1,12p) >&2
  rm "$out.tar.xz"
  exit 1
}
