#!/usr/bin/env bash
# shellcheck disable=SC2317,SC2329  # stages are called by name
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
run=second_run whole_limit=540
usage='Nine minutes on a rented card: how fast, against PyTorch on the same card, and what limits it.
  tests/gpu/second_run.sh [OPTIONS]'
# shellcheck source=tests/gpu/runs.sh
. "$here/runs.sh"
begin_run "$@"

# Sizes of the real card, or of the executor.
if [ $simt = yes ]; then
  attention_sizes=(--seq-len 64 --head-dim 64 --width 64 --tokens 64 --seconds 0)
  op_sizes=(--rows 64 --seq-len 64 --width 64 --d-ff 64 --vocab 100 --logit-rows 4 --numbers 4096 --seconds 0)
  head_sizes=(--vocab 300 --width 64 --rows 64 --clusters 16 --groups 4 --codes 8 --repeats 1)
  small_vq=(--d-model 64 --layers 1 --heads 1 --seq-len 64 --batch 1 --d-ff 64 --vocab 100 --steps 1 --warmup 1 --profile 1)
  small_dense=("${small_vq[@]}") large_dense=("${small_vq[@]}" --micro-batches 2)
  small_vq+=(--clusters 16) large_vq=("${small_vq[@]}" --micro-batches 2)
  planned=(--config configs/gpt2-small-dense.toml --set model.d_model=64 --set model.n_layers=1 --set model.n_heads=1
           --set model.d_ff=64 --set data.seq_len=64 --set train.micro_batch=1 --set train.global_batch=1 --vocab 100)
  tuned=("${planned[@]}" --set train.global_batch=2 --repeats 2)
  peer_steps=(--steps 2 --warmup 1)
  training_length=(--set train.steps=2 --set train.eval_every=1 --set optim.warmup_steps=1 --set train.global_batch=2
    --set train.micro_batch=1 --set data.seq_len=64 --set model.d_model=64 --set model.n_layers=1 --set model.n_heads=1
    --set model.d_ff=64 --set run.log_every=1)
  training_vq=(--set head.clusters=16 --set head.map=random)
else
  # shellcheck disable=SC2054
  attention_sizes=(--seq-len 1024,2048,8192 --head-dim 64,128 --width 2048 --tokens 16384 --seconds 0.2)
  op_sizes=(--rows 32768 --seq-len 2048 --width 4096 --head-dim 128 --d-ff 11008 --vocab 50257 --logit-rows 8192
            --numbers 268435456 --seconds 0.1)
  head_sizes=(--vocab 128000 --width 4096 --rows 16384 --clusters 512 --groups 64 --codes 256 --repeats 3)
  small_model=(--config configs/gpt2-small-dense.toml --vocab 50257 --batch 32)
  small_dense=("${small_model[@]}" --steps 20 --warmup 3 --profile 2)
  small_vq=(--config configs/gpt2-small-vq.toml --vocab 50257 --batch 32 --steps 20 --warmup 3 --profile 2)
  planned=(--config configs/gpt2-small-dense.toml --set train.micro_batch=32 --set train.global_batch=32 --vocab 50257)
  tuned=("${planned[@]}" --set train.global_batch=64)
  large=(--vocab 50257 --batch 4 --tensor 1 --steps 8 --warmup 2 --profile 1)
  large_dense=(--config configs/1b5-dense.toml "${large[@]}")
  large_vq=(--config configs/1b5-vq.toml "${large[@]}")
  peer_steps=(--steps 15 --warmup 4)
  training_length=(--set train.steps=150 --set train.eval_every=75 --set optim.warmup_steps=20 --set train.global_batch=64
    --set train.micro_batch=32 --set run.log_every=10)
  training_vq=()
fi

# step NAME OPTIONS...: the JSON is NAME.json
step() { local name=$1; shift; ours "$vqlm" bench step --device cuda "$@" --json "$work/$name.json"; }
small_steps() {
  mine() { step small-dense --head dense "${small_dense[@]}"; }
  theirs() { peer peer_step "$work/small-peer.jsonl" --like "$work/small-dense.json" "${peer_steps[@]}" \
               --recipe 'bf16 + master' --loss plain --loss cut; }
  compare() { figures step "$work/small-dense.json" "$work/small-peer.jsonl" --target-mfu 55 --target-ratio 1.15; }
  both mine theirs compare
}
# The products of that step, and of a step that adds to gradients, by the fastest algorithms; then the step once more.
tune() {
  ours "$vqlm" tune --device cuda "${tuned[@]}" --out "$work/tuned-products.json"
  step small-tuned --head dense "${small_dense[@]}" --set run.products_file="$work/tuned-products.json"
  figures tuned "$work/small-dense.json" "$work/small-tuned.json"
}
small_vq_steps() {
  step small-vq --head vq "${small_vq[@]}"
  figures step "$work/small-vq.json" "$work/small-peer.jsonl" --target-ratio 1.5
}
large_steps() {
  mine() { step large-dense --head dense "${large_dense[@]}"; }
  theirs() { peer peer_step "$work/large-peer.jsonl" --like "$work/large-dense.json" "${peer_steps[@]}" \
               --recipe 'bf16 + master' --loss plain --compile-blocks; }
  compare() { figures step "$work/large-dense.json" "$work/large-peer.jsonl" --target-mfu 65; }
  both mine theirs compare
}
large_vq_steps() {
  step large-vq --head vq "${large_vq[@]}"
  figures step "$work/large-vq.json" "$work/large-peer.jsonl" --target-mfu 65
}
attention() {
  mine() { ours "$vqlm" bench attention --device cuda "${attention_sizes[@]}" --json "$work/attention.json"; }
  theirs() { peer peer_attention "$work/attention-peer.jsonl" --like "$work/attention.json" --repeats 5; }
  compare() { figures attention "$work/attention.json" "$work/attention-peer.jsonl"; }
  both mine theirs compare
}
graphs() {
  step small-graphs-off --head dense "${small_dense[@]}" --set run.cuda_graphs=false
  step small-ordinary --head dense "${small_dense[@]}" --set run.dependent_launch=false
  figures compare "$work/small-dense.json" "$work/small-graphs-off.json" "$work/small-ordinary.json"
}
# The same body with both heads: do the losses fall together?
training() {
  local head length=("${training_length[@]}")
  own_shards
  for head in dense vq; do
    [ $head = dense ] || length+=("${training_vq[@]}")
    trained "run-$head" --config "configs/gpt2-small-$head.toml" "${length[@]}" --set optim.schedule=constant \
      --set "data.heldout=$shards/heldout-*.h5" --set train.eval_tokens=65536
  done
  figures losses "$work/run-dense/metrics.jsonl" "$work/run-vq/metrics.jsonl"
  [ ! -e "$work/docs.txt" ] || echo '(on the documentation: no --shards)' | tee -a "$work/figures"
}
head_pass() {
  mine() { ours "$vqlm" bench head --device cuda "${head_sizes[@]}" --json "$work/head.json"; }
  theirs() { peer peer_head "$work/head-peer.jsonl" --like "$work/head.json"; }
  compare() { figures head "$work/head.json" "$work/head-peer.jsonl"; }
  both mine theirs compare
}
ops() {
  ours "$vqlm" bench ops --device cuda "${op_sizes[@]}" --json "$work/ops.json"
  figures ops "$work/ops.json"
}
memory() {
  ours "$vqlm" plan "${planned[@]}" --grid 1x1 --json "$work/plan.json"
  figures memory "$work/plan.json" "$work/small-dense.json" "$work/card.csv"
}
# Ten kernels of a step at its own shapes, the second call of each; the clock is left alone, so times are a run's.
counters() {
  [ $simt = no ] || { echo "the executor has no counters"; return $skip; }
  command -v ncu >/dev/null || { echo "ncu is not installed"; return $skip; }
  local status=0 log=$work/ncu.csv kernels='attention_forward|key_gradient|query_gradient|rmsnorm_forward|rmsnorm_backward'
  kernels+='|swiglu_forward|swiglu_backward|statistics|gradient_kernel|adamw'
  limited ncu --clock-control none --target-processes all --csv --page raw --print-units base \
    --kernel-name-base function --kernel-id "::regex:^($kernels).*:2" \
    --section SpeedOfLight --section Occupancy --section ComputeWorkloadAnalysis \
    "${runner[@]}" "$bin/$vqlm" bench step --device cuda --head dense "${small_model[@]}" --steps 1 --warmup 1 --profile 0 \
    --set run.cuda_graphs=false >"$log" 2>&1 || status=$?
  if grep -m1 -E 'ERR_NVGPUCTRPERM|not supported|Failed to (load|initialize)' "$log"; then return $skip; fi
  figures counters "$log"
  return $status
}
# Every n-th test of the suite, since a tool makes a test 10 to 100 times slower: sanitizer TOOL N OPTIONS...
sanitizer() {
  [ $simt = no ] || { echo "the executor has its own checks"; return $skip; }
  command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not installed"; return $skip; }
  [ -x "$bin/$cuda_tests" ] || { echo "no $bin/$cuda_tests"; return 127; }
  local tool=$1 part=$2 status=0 log=$work/sanitizer-$1.txt; shift 2
  GTEST_TOTAL_SHARDS=$part GTEST_SHARD_INDEX=0 limited compute-sanitizer --tool "$tool" --target-processes all \
    --error-exitcode 9 "$@" "${runner[@]}" "$bin/$cuda_tests" --gtest_brief=1 >"$log" 2>&1 || status=$?
  if grep -qi 'device not supported' "$log"; then echo "compute-sanitizer: this machine's GPU is not supported"; return $skip; fi
  # The tool's status counts cuBLASLt's kernels, too, and a test that the time cut off: what counts is said of ours.
  figures sanitizer "$log" || return 1
  case $status in 0|9) ;; *) return $status ;; esac
}
memcheck() { sanitizer memcheck 8; }
racecheck() { sanitizer racecheck 24; }
synccheck() { sanitizer synccheck 16; }
initcheck() { sanitizer initcheck 16 --kernel-regex kns=vqlm; }

# What matters most comes first: a run that is cut off loses the last.
stage small 98 small_steps 'training step, GPT-2 small, dense head, against PyTorch compiled and cut cross-entropy'
stage tune 20 tune 'the small step with products by timed algorithms'
stage small_vq 19 small_vq_steps 'training step, GPT-2 small, VQ head'
stage attention 48 attention "attention against scaled_dot_product_attention's back ends by name"
stage training 66 training 'a minute of training of both heads, with held-out losses'
stage large 84 large_steps 'training step, 1.5 billion parameters, dense head, against PyTorch compiled'
stage large_vq 24 large_vq_steps 'training step, 1.5 billion parameters, VQ head'
stage graphs 18 graphs 'the small step without CUDA graphs, and without dependent launches'
stage head 34 head_pass 'both heads, V = 128,000, d = 4,096, N = 16,384, against PyTorch'
stage ops 15 ops 'ops that move bytes against the copy rate'
stage memory 8 memory "the memory of the small step against vqlm plan's bytes"
stage counters 24 counters 'hardware counters of ten kernels'
stage memcheck 22 memcheck 'compute-sanitizer: bad addresses'
stage racecheck 15 racecheck 'compute-sanitizer: races in shared memory'
stage synccheck 14 synccheck 'compute-sanitizer: barriers'
stage initcheck 14 initcheck 'compute-sanitizer: uninitialised memory'
end_run
