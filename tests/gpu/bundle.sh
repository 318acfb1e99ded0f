#!/usr/bin/env bash
# Packs programs for a GPU machine that has CUDA's libraries and a glibc no older than here, but no MPI, HDF5 or SentencePiece.
#   tests/gpu/bundle.sh OUT PROGRAM... [-- FILE...]
#   tests/gpu/bundle.sh build/bundle build/{vqlm,cuda_tests,nccl_ranks_native} -- shards/*.h5
# OUT/bin: the programs, mpirun and orted; OUT/lib: what they link, and Open MPI's plugins; OUT/shards: the FILEs. There:
#   tests/gpu/run_all.sh --bin OUT/bin --runner OUT/run.sh --shards OUT/shards
# glibc, the compiler's and CUDA's libraries are the other machine's (LD_LIBRARY_PATH finds CUDA's where the loader does not).
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
out=$1; shift
programs=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do programs+=("$1"); shift; done
[ $# -eq 0 ] || shift
mpi=$(command -v mpirun) || { echo "bundle.sh: mpirun is not installed (launch/packages.sh names the packages)" >&2; exit 1; }
# Open MPI looks for plugins and texts below OPAL_PREFIX, in the folders that it was configured with below its own prefix.
info() { ompi_info --parsable --path "$1" | cut -d: -f3; }
prefix=$(info prefix) plugins=$(info pkglibdir) texts=$(info pkgdatadir)
pmix_plugins=$(dirname "$(dirname "$plugins")")/../pmix2/lib/pmix
theirs='/(ld-linux[^/]*|lib(c|m|dl|pthread|rt|resolv|util|stdc\+\+|gcc_s|cuda|cudart|cublas|cublasLt|nccl|nvrtc|nvJitLink))[.-][^/]*$'

rm -rf "$out"
mkdir -p "$out/bin" "$out/lib" "$out/shards"
out=$(cd "$out" && pwd)
cp -L "${programs[@]}" "$mpi" "$(command -v orted)" "$out/bin/"
[ $# -eq 0 ] || cp -L "$@" "$out/shards/"
inside() { echo "$out/${1#"$prefix"/}"; }
mkdir -p "$(inside "$plugins")" "$(inside "$texts")"
# One machine, shared memory: plugins for networks and schedulers would only pull in their libraries.
for plugin in "$plugins"/*.so; do
  case $(basename "$plugin") in
    *ucx*|*ofi*|*openib*|*psm*|*usnic*|*portals*|*lustre*|*gpfs*|*pvfs*|*cuda*|*slurm*|*gridengine*|*uct*|*monitoring*) ;;
    *) cp -L "$plugin" "$(inside "$plugins")/" ;;
  esac
done
cp -rL "$texts/." "$(inside "$texts")/"
if [ -d "$pmix_plugins" ]; then
  pmix_plugins=$(cd "$pmix_plugins" && pwd)
  mkdir -p "$(inside "$pmix_plugins")" && cp -L "$pmix_plugins"/*.so "$(inside "$pmix_plugins")/"
fi
find "$out" -type f \( -perm -u+x -o -name '*.so*' \) -print0 | xargs -0 -n1 ldd 2>/dev/null |
  awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u | grep -vE "$theirs" |
  while read -r library; do cp -L "$library" "$out/lib/"; done

cat >"$out/run.sh" <<'RUN'
#!/bin/sh
# run.sh PROGRAM ARGUMENTS...   or   run.sh mpirun -n 2 PROGRAM ARGUMENTS...
here=$(cd "$(dirname "$0")" && pwd)
nvidia=$(python3 -c 'import glob, nvidia; print(":".join(sum((glob.glob(p + "/*/lib") for p in nvidia.__path__), [])))' 2>/dev/null)
export PATH="$here/bin:$PATH" OPAL_PREFIX="$here"
export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}:/usr/local/cuda/lib64${nvidia:+:$nvidia}"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_plm=isolated OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader PMIX_MCA_pcompress_base_silence_warning=1
exec "$@"
RUN
chmod +x "$out/run.sh"
du -sh "$out" | cut -f1
