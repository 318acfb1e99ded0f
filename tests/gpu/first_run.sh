#!/usr/bin/env bash
# shellcheck disable=SC2317,SC2329  # stages are called by name
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
run=first_run whole_limit=170
usage='The first three minutes on a rented card: do the programs start, are the kernels right, are runs the same to the bit?
  tests/gpu/first_run.sh [OPTIONS]'
# shellcheck source=tests/gpu/runs.sh
. "$here/runs.sh"
begin_run "$@"

machine() {
  uname -a; nproc; free -g || true
  command -v nvcc && nvcc --version
  "$python" -c 'import torch; print("PyTorch", torch.__version__, torch.cuda.is_available())' || true
  if [ $simt = yes ]; then echo "host executor" >"$work/figures"; return 0; fi
  limited nvidia-smi
  timeout 3 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv,noheader |
    tee "$work/figures"
}
# The loader itself says which files it took; names alone would not tell a wheel's cuBLASLt from the toolkit's.
doctor() {
  local status=0
  LD_DEBUG=libs LD_DEBUG_OUTPUT=$work/loader ours "$vqlm" doctor --device cuda --json "$work/doctor.json" || status=$?
  sed -n 's/.*calling init: //p' "$work"/loader.* | sort -u | tee "$work/libraries.txt"
  rm -f "$work"/loader.*
  figures libraries "$work/doctor.json" "$work/libraries.txt"
  return $status
}
# All of them, in as many processes as the processors feed: the CPU's results, with which kernels are compared, take longest.
op_tests() {
  local parts=$(($(nproc) / 4)) part status=0 pids=()
  [ $parts -ge 1 ] || parts=1
  [ $parts -le 4 ] || parts=4
  export OMP_NUM_THREADS=4
  # The executor's whole suite is a test of its own: there every 60th case, in two processes.
  [ $simt = no ] || parts=2
  for ((part = 0; part < parts; part++)); do
    local index=$part total=$parts
    [ $simt = no ] || { total=120 index=$((part * 60)); }
    GTEST_TOTAL_SHARDS=$total GTEST_SHARD_INDEX=$index ours "$cuda_tests" --gtest_brief=1 >"$work/op_tests-$part.log" 2>&1 &
    pids+=($!)
  done
  for part in "${!pids[@]}"; do wait "${pids[$part]}" || status=$?; done
  cat "$work"/op_tests-*.log
  figures tests "$work"/op_tests-*.log
  return $status
}
nccl() { ours "$nccl_ranks"; figures tests "$work/nccl.log"; }

if [ $simt = yes ]; then
  model=(--set train.global_batch=2 --set train.micro_batch=1 --set data.seq_len=64 --set model.d_model=64 --set model.n_layers=1
         --set model.n_heads=1 --set model.d_ff=64)
  vq_model=(--set head.clusters=16 --set head.map=random)
  products=(--rows 64 --width 64 --d-ff 64 --vocab 129,192 --logit-rows 8 --seconds 0)
else
  # Two micro-batches, so that both graphs are replayed; a third of the blocks, since every run also saves its state.
  model=(--set train.global_batch=64 --set train.micro_batch=32 --set data.seq_len=256 --set model.n_layers=4)
  vq_model=(--set head.map=frequency)
  # GPT-2 small at batch 32, T 1,024; 512 MiB of logits are 5,336 rows.
  products=(--rows 32768 --width 768 --d-ff 2048 --vocab 50257,50304 --logit-rows 5336 --seconds 0.05)
fi
# five_steps HEAD THIRD OPTIONS...: thrice, with graphs, without, and THIRD: with graphs of ordinary launches, or as the first
# time once more; the same losses and norms in every digit.
five_steps() {
  local head=$1 third=$2 graphs dependent name; shift 2
  own_shards
  for name in on off $third; do
    graphs=true; [ $name != off ] || graphs=false
    dependent=true; [ $name != ordinary ] || dependent=false
    trained "$head-$name" --config "configs/gpt2-small-$head.toml" --set run.cuda_graphs=$graphs \
      --set run.dependent_launch=$dependent "${model[@]}" "$@" \
      --set train.steps=5 --set optim.warmup_steps=1 --set run.log_every=1 --set data.heldout=
  done
  figures same "$work/$head-on/metrics.jsonl" "$work/$head-off/metrics.jsonl" "$work/$head-$third/metrics.jsonl"
}
graphs_dense() { five_steps dense ordinary; }
graphs_vq() { five_steps vq again "${vq_model[@]}"; }
products() {
  ours "$vqlm" bench products --device cuda "${products[@]}" --json "$work/products.json"
  figures products "$work/products.json"
}

stage machine 8 machine 'what machine this is'
stage doctor 15 doctor 'the libraries found and where; vqlm doctor: a second of products and all-reduces'
stage op_tests 55 op_tests 'every kernel against the CPU back end'
stage nccl 12 nccl 'NCCL with one rank'
stage graphs_dense 26 graphs_dense 'five training steps with graphs, without, and with ordinary launches: equal to the bit'
stage graphs_vq 26 graphs_vq 'the same with the VQ head'
stage products 20 products 'the products of GPT-2 small, the head at V = 50,257 and at 50,304'
end_run
