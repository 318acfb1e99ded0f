#!/usr/bin/env bash
# Everything that needs a real GPU, in order, in under nine minutes; goes on after a failure and prints one table last.
#   tests/gpu/run_all.sh [--bin DIR] [--runner PROGRAM] [--shards DIR] [--python PYTHON] [--only STAGE,...] [--dry-run]
#                        [--build] [--simt] [--quick]
#   --bin DIR      where vqlm, cuda_tests and nccl_ranks_native are (default: build)
#   --runner P     put before each of them: run.sh of a bundle (tests/gpu/bundle.sh) on a machine without MPI and HDF5
#   --shards DIR   train-*.h5 and heldout-*.h5 for the short training; skipped without
#   --python P     a Python with PyTorch for the peers (default: python3)
#   --only A,B     these stages alone (--dry-run lists them)
#   --build        cmake and build first (needs nvcc and the packages of launch/packages.sh)
#   --simt         the same stages, tiny, with the programs of the host executor: tests this script where no GPU is
#   --quick        with --simt: without the PyTorch peers
# Logs and results lie in ${OUT:-build/gpu-logs}. Exit status: 0, or 1 where a stage failed or had no time left (the limits
# add up to more than nine minutes; --only runs the rest). A stage that cannot run here (no compute-sanitizer, no shards) is
# skipped and says why; without PyTorch the figures say that they hold no ratio.
# shellcheck disable=SC2317  # stages are called by name
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
usage() { sed -n '2,/^# shellcheck/{/^# shellcheck/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

bin=$root/build runner=() shards='' python=python3 only='' dry=no build=no simt=no quick=no
while [ $# -gt 0 ]; do
  case $1 in
    --bin) bin=$2; shift 2 ;;
    --runner) runner=("$2"); shift 2 ;;
    --shards) shards=$(cd "$2" && pwd) || exit 2; shift 2 ;;
    --python) python=$2; shift 2 ;;
    --only) only=,$2,; shift 2 ;;
    --build) build=yes; shift ;;
    --dry-run) dry=yes; shift ;;
    --simt) simt=yes; shift ;;
    --quick) quick=yes; shift ;;
    --help|-h) usage; exit 0 ;;
    *) echo "run_all.sh: unknown option $1; --help lists them" >&2; exit 2 ;;
  esac
done
out=${OUT:-$root/build/gpu-logs}
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
vqlm=vqlm cuda_tests=cuda_tests nccl_ranks=nccl_ranks_native
[ $simt = no ] || vqlm=vqlm_simt cuda_tests=cuda_tests_simt nccl_ranks=nccl_ranks
table=$out/table.tsv
# Results of an earlier run must not stand in for one that fails now.
[ $dry = yes ] || rm -rf "$out"/*.log "$out"/*.json "$out"/*.jsonl "$out"/run-*
: >"$table"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
whole_limit=525  # seconds of all stages: nine minutes less what ends them
skip=77          # exit status of a stage that cannot run here
no_time=78       # of one that was not started

# ---- running -----------------------------------------------------------------------------------------------------------
stage_end=0
left() { local seconds=$((stage_end - SECONDS)); echo $((seconds > 1 ? seconds : 1)); }
limited() { echo "+ $*"; timeout -k 5 "$(left)" "$@"; }
# One of our programs.
ours() {
  local program=$bin/$1; shift
  [ -x "$program" ] || { echo "no $program"; return 127; }
  limited "${runner[@]}" "$program" "$@"
}
# A PyTorch peer: JSON lines to a file, or a line that says why there is no ratio.
peer() {
  local script=$1 results=$2; shift 2
  [ $simt = no ] || set -- "$@" --device cpu --eager
  [ $quick = no ] || { echo 'no ratio (--quick)' | tee "$results"; return 0; }
  "$python" -c 'import torch' 2>/dev/null || { echo 'no ratio (PyTorch missing)' | tee "$results"; return 0; }
  limited "$python" -B "$root/tests/bench/$script.py" "$@" | tee "$results"
}
figures() { "$python" -B "$here/figures.py" "$@" >"$out/figures"; }

# stage NAME SECONDS FUNCTION WHAT: runs it in a subshell, its words in NAME.log.
stage() {
  local name=$1 limit=$2 work=$3 what=$4 begin=$SECONDS status
  [ -z "$only" ] || [[ $only == *",$name,"* ]] || return 0
  if [ $dry = yes ]; then printf '%-16s at most %3d s  %s\n' "$name" "$limit" "$what"; return 0; fi
  stage_end=$((SECONDS + limit < whole_limit ? SECONDS + limit : whole_limit))
  : >"$out/figures"
  printf '%-16s ... ' "$name"
  if [ "$stage_end" -le "$SECONDS" ]; then status=$no_time; echo "no time left: --only $name" | tee "$out/figures" >"$out/$name.log"
  else (set -e; cd "$root"; "$work") >"$out/$name.log" 2>&1; status=$?; fi
  case $status in
    0) status=passed ;;
    "$skip") status=skipped; tail -1 "$out/$name.log" >"$out/figures" ;;
    "$no_time") status='not run' ;;
    124|137) status='timed out' ;;
    127) status=missing; grep -m1 '^no ' "$out/$name.log" >"$out/figures" ;;
    *) status="failed ($status)" ;;
  esac
  echo "$status"
  printf '%s\t%s\t%s\t%s\n' "$name" "$status" $((SECONDS - begin)) "$(paste -sd' ' "$out/figures")" >>"$table"
}

# ---- stages ------------------------------------------------------------------------------------------------------------
environment() {
  uname -a; nproc; free -g
  command -v nvcc && nvcc --version
  "$python" -c 'import torch; print("PyTorch", torch.__version__, torch.cuda.is_available())' || true
  if [ $simt = yes ]; then return 0; fi
  limited nvidia-smi
  limited nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv,noheader |
    tee "$out/figures"
}
op_tests() {
  # The executor's whole suite is a test of its own.
  [ $simt = no ] || export GTEST_TOTAL_SHARDS=50 GTEST_SHARD_INDEX=0
  ours "$cuda_tests" --gtest_brief=1
  grep -E '^\[  PASSED  \]' "$out/op_tests.log" | tail -1 >"$out/figures"
}
# Every n-th test of the suite, since a tool makes a test 10 to 100 times slower: sanitizer TOOL N
sanitizer() {
  [ $simt = no ] || { echo "the executor has its own checks"; return $skip; }
  command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not installed"; return $skip; }
  local status=0 log=$out/sanitizer-$1.txt
  [ -x "$bin/cuda_tests" ] || { echo "no $bin/cuda_tests"; return 127; }
  GTEST_TOTAL_SHARDS=$2 GTEST_SHARD_INDEX=0 limited compute-sanitizer --tool "$1" --error-exitcode 9 \
    "${runner[@]}" "$bin/cuda_tests" --gtest_brief=1 >"$log" 2>&1 || status=$?
  cat "$log"
  if grep -qi 'device not supported' "$log"; then echo "compute-sanitizer: this machine's GPU is not supported"; return $skip; fi
  grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$log" | tail -1 >"$out/figures"
  return $status
}
memcheck() { sanitizer memcheck 4; }
racecheck() { sanitizer racecheck 16; }
synccheck() { sanitizer synccheck 8; }
initcheck() { sanitizer initcheck 8; }
nccl() { ours "$nccl_ranks"; }
doctor() { ours "$vqlm" doctor ${shards:+--data "$shards/train-*.h5"}; }

# Sizes of the real card, or of the executor.
if [ $simt = yes ]; then
  attention_sizes=(--seq-len 64 --head-dim 64 --width 64 --tokens 64 --seconds 0)
  op_sizes=(--rows 64 --seq-len 64 --width 64 --d-ff 64 --vocab 100 --logit-rows 4 --numbers 4096 --seconds 0)
  head_sizes=(--vocab 300 --width 64 --rows 64 --clusters 16 --groups 4 --codes 8 --repeats 1)
  steps=(--steps 1 --warmup 1 --profile 1)
  small=(--d-model 64 --layers 1 --heads 1 --seq-len 64 --batch 1 --d-ff 64 --vocab 100 "${steps[@]}")
  small_vq=("${small[@]}" --clusters 16 --groups 4 --codes 8) small_dense=("${small[@]}")
  large_vq=("${small_vq[@]}" --micro-batches 2) large_dense=("${small[@]}" --micro-batches 2)
  peer_steps=(--steps 2 --warmup 1)
else
  # shellcheck disable=SC2054
  attention_sizes=(--seq-len 2048,4096,8192 --head-dim 64,128 --width 2048 --tokens 16384 --seconds 0.3)
  op_sizes=(--rows 32768 --seq-len 2048 --width 4096 --head-dim 128 --d-ff 11008 --vocab 50257 --logit-rows 8192
            --numbers 268435456 --seconds 0.1)
  head_sizes=(--vocab 128000 --width 4096 --rows 16384 --clusters 512 --groups 64 --codes 256 --repeats 3)
  steps=(--steps 20 --warmup 3 --profile 2)
  small=(--vocab 50257 --batch 32 "${steps[@]}")
  small_vq=(--config configs/gpt2-small-vq.toml "${small[@]}")
  small_dense=(--config configs/gpt2-small-dense.toml "${small[@]}")
  large=(--vocab 50257 --batch 4 --tensor 1 --steps 8 --warmup 2 --profile 1)
  large_vq=(--config configs/1b5-vq.toml "${large[@]}")
  large_dense=(--config configs/1b5-dense.toml "${large[@]}")
  peer_steps=(--steps 15 --warmup 4)
fi

# both OURS PEER: a failure of either is the stage's, and neither stops the other.
both() { local status=0; "$1" || status=$?; "$2" || status=$?; "$3" || true; return $status; }
attention() {
  mine() { ours "$vqlm" bench attention --device cuda "${attention_sizes[@]}" --json "$out/attention.json"; }
  theirs() { peer peer_attention "$out/attention-peer.jsonl" --like "$out/attention.json"; }
  compare() { figures attention "$out/attention.json" "$out/attention-peer.jsonl"; }
  both mine theirs compare
}
ops() {
  ours "$vqlm" bench ops --device cuda "${op_sizes[@]}" --json "$out/ops.json"
  figures ops "$out/ops.json"
}
head_pass() {
  mine() { ours "$vqlm" bench head --device cuda "${head_sizes[@]}" --json "$out/head.json"; }
  theirs() { peer peer_head "$out/head-peer.jsonl" --like "$out/head.json"; }
  compare() { figures head "$out/head.json" "$out/head-peer.jsonl"; }
  both mine theirs compare
}
# step NAME OPTIONS...: the JSON is NAME.json
step() { local name=$1; shift; ours "$vqlm" bench step --device cuda "$@" --json "$out/$name.json"; }
small_steps() {
  dense() { step small-dense --head dense "${small_dense[@]}"; }
  peers() { peer peer_step "$out/small-peer.jsonl" --like "$out/small-dense.json" "${peer_steps[@]}" --loss plain; }
  compare() { figures step "$out/small-dense.json" "$out/small-peer.jsonl" --target-mfu 55 --target-ratio 1.15; }
  both dense peers compare
}
small_vq_steps() {
  step small-vq --head vq "${small_vq[@]}"
  figures step "$out/small-vq.json" "$out/small-peer.jsonl" --target-ratio 1.5
}
large_steps() {
  dense() { step large-dense --head dense "${large_dense[@]}"; }
  peers() { peer peer_step "$out/large-peer.jsonl" --like "$out/large-dense.json" "${peer_steps[@]}" --loss plain \
              --recipe 'bf16 + master' --compile-blocks; }
  compare() { figures step "$out/large-dense.json" "$out/large-peer.jsonl" --target-mfu 65; }
  both dense peers compare
}
large_vq_steps() {
  step large-vq --head vq "${large_vq[@]}"
  figures step "$out/large-vq.json" "$out/large-peer.jsonl" --target-mfu 65
}
graphs_off() {
  step small-graphs-off --head dense "${small_dense[@]}" --set run.cuda_graphs=false
  figures compare "$out/small-dense.json" "$out/small-graphs-off.json"
}
# Reductions need ranks: two GPUs, or the executor's.
overlap() {
  local mpirun=(mpirun --oversubscribe --bind-to none -n 2)
  if [ $simt = no ] && [ "$(nvidia-smi -L | wc -l)" -lt 2 ]; then echo "one GPU: no reductions to overlap"; return $skip; fi
  command -v mpirun >/dev/null || [ ${#runner[@]} -gt 0 ] || { echo "mpirun is not installed"; return $skip; }
  [ -x "$bin/$vqlm" ] || { echo "no $bin/$vqlm"; return 127; }
  local setting
  for setting in true false; do
    limited "${runner[@]}" "${mpirun[@]}" "$bin/$vqlm" bench step --device cuda --head dense "${small_dense[@]}" \
      --set parallel.overlap=$setting --json "$out/overlap-$setting.json"
  done
  figures compare "$out/overlap-true.json" "$out/overlap-false.json"
}
# The same body with both heads on real text: do the losses fall together?
training() {
  [ -n "$shards" ] || { echo "no --shards"; return $skip; }
  local head length=(--set train.steps=80 --set train.global_batch=64 --set train.micro_batch=32 --set run.log_every=10
    --set optim.warmup_steps=20)
  [ $simt = no ] || length=(--set train.steps=2 --set optim.warmup_steps=1 --set train.global_batch=2 --set train.micro_batch=1 --set data.seq_len=64
    --set model.d_model=64 --set model.n_layers=1 --set model.n_heads=1 --set model.d_ff=64 --set run.log_every=1)
  for head in dense vq; do
    [ $simt = no ] || [ $head = dense ] || length+=(--set head.clusters=16 --set head.map=random)
    rm -rf "$out/run-$head"
    ours "$vqlm" train --config "configs/gpt2-small-$head.toml" --set run.device=cuda "${length[@]}" \
      --set "data.train=$shards/train-*.h5" --set "data.heldout=$shards/heldout-*.h5" --set train.eval_every=0 \
      --set train.eval_tokens=65536 --set optim.schedule=constant --set parallel.tensor=1 \
      --set checkpoint.every=0 --set run.dir="$out/run-$head"
  done
  figures losses "$out/run-dense/metrics.jsonl" "$out/run-vq/metrics.jsonl"
}

if [ $build = yes ] && [ $dry = no ]; then
  { cmake -S "$root" -B "$bin" -G Ninja -DVQLM_CUDA=ON && cmake --build "$bin" --target vqlm cuda_tests nccl_ranks_native
  } >"$out/build.log" 2>&1 || { tail -20 "$out/build.log"; exit 1; }
  SECONDS=0
fi
# Cheapest first: what does not fit into the time should be the least that only a GPU can show.
stage environment 15 environment 'what machine this is'
stage doctor 20 doctor 'vqlm doctor: a second of products, all-reduces and shards'
stage op_tests 60 op_tests 'every kernel against the CPU back end'
stage memcheck 40 memcheck 'compute-sanitizer: bad addresses'
stage racecheck 30 racecheck 'compute-sanitizer: races in shared memory'
stage synccheck 20 synccheck 'compute-sanitizer: barriers'
stage initcheck 20 initcheck 'compute-sanitizer: uninitialised memory'
stage nccl 20 nccl 'NCCL with one rank'
stage attention 60 attention 'attention against scaled_dot_product_attention'
stage ops 20 ops 'ops that move bytes against the copy rate'
stage head 70 head_pass 'both heads, V = 128,000, d = 4,096, N = 16,384, against PyTorch'
stage small 120 small_steps 'training step, GPT-2 small, dense head, against PyTorch compiled'
stage small_vq 25 small_vq_steps 'training step, GPT-2 small, VQ head'
stage training 70 training 'short training of both heads on real shards'
stage graphs 25 graphs_off 'the step without CUDA graphs'
stage overlap 40 overlap 'the step with and without overlapped reductions'
stage large 90 large_steps 'training step, 1.5 billion parameters, dense head, against PyTorch compiled'
stage large_vq 30 large_vq_steps 'training step, 1.5 billion parameters, VQ head'
[ $dry = no ] || exit 0
"$python" -B "$here/figures.py" table "$table"
