# shellcheck shell=bash
# The jobs of launch/ablation.sh, which sources this file: one row of a study trained and evaluated, and all of them, some
# side by side. Reads its variables: home program out shards train heldout ood steps device ranks jobs sets plan.
#
# rows/ID/: overrides.txt (what was trained), jobs.txt (how many rows side by side), status (one line: done, or stopped,
# refused: or failed: and why), log.txt, run/ (the run folder), eval-in.json and eval-ood.json.

# shellcheck disable=SC2154  # variables of ablation.sh
last_checkpoint() { printf '%s/rows/%s/run/checkpoints/step-%08d/manifest.json' "$out" "$1" "$steps"; }

row_state() {
  local status=$out/rows/$1/status
  if [ -e "$status" ]; then cut -d: -f1 "$status"; elif [ -e "$out/rows/$1" ]; then echo begun; else echo "to do"; fi
}

# reason LOG CODE: the line that says what went wrong, without the program's name; else the last line there is.
reason() {
  local line
  line=$(grep 'vqlm: error: ' "$1" | tail -n 1 | sed 's/.*vqlm: error: //')
  echo "${line:-exit code $2; $1 ends with: $(tail -n 1 "$1")}"
}

# run_program LOG COMMAND...: in the background, so that a signal to this job reaches it. Its exit code.
run_program() {
  local log=$1 child status=0
  shift
  [ "$stopping" = no ] || return 1
  "$@" >>"$log" 2>&1 </dev/null &
  child=$!
  trap 'stopping=yes; kill -TERM $child 2>/dev/null' TERM
  while :; do
    status=0
    wait $child || status=$?
    kill -0 $child 2>/dev/null || return $status
  done
}

# With mpirun only where there are several ranks.
launcher=()
if [ "$ranks" -gt 1 ]; then launcher=("$home/launch/mpirun.sh" -n "$ranks"); fi

# make_map FILE LOG WORDS: `vqlm codes WORDS`; one job makes it, others that want it wait.
make_map() {
  local file=$1 log=$2 turn code=0 ranks=()
  shift 2
  # To run a model takes as many ranks as to train one; statistics of the text are a matter of seconds.
  if [ "$1" = refit ]; then ranks=("${launcher[@]}"); fi
  exec {turn}>"$file.lock"
  flock "$turn"
  [ -e "$file" ] || run_program "$log" "${ranks[@]}" "$program" codes "$@" --data "$train" --out "$file" || code=$?
  exec {turn}>&-
  return $code
}

train_row() {
  local folder=$1 id=$2 overrides=$3 map=$4 existing=() words=() word
  # shellcheck disable=SC2086  # overrides are words
  for word in "train.steps=$steps" "data.train=$train" "data.heldout=$heldout" "train.seed=${id##*-s}" \
    "run.dir=$folder/run" "run.name=${id%-s*}" $overrides; do
    words+=(--set "$word")
  done
  # Eight evaluations show how a difference develops; --set train.eval_every has its own.
  [[ " ${sets[*]} " == *" train.eval_every="* ]] || words+=(--set "train.eval_every=$(((steps + 7) / 8))")
  if [ "$map" != - ]; then words+=(--set "head.map=$out/maps/$map"); fi
  if compgen -G "$folder/run/checkpoints/step-*[0-9]/manifest.json" >/dev/null; then
    existing=(--resume)
  elif [ -e "$folder/run/config.toml" ]; then
    existing=(--force)
  fi
  echo "$jobs" >"$folder/jobs.txt"
  run_program "$folder/log.txt" "${launcher[@]}" "$program" train --config "$out/configuration.toml" --device "$device" "${words[@]}" "${existing[@]}"
}

# evaluate_row FOLDER DATA JSON: the losses by frequency of the training text, too.
evaluate_row() {
  if [ "$3" -nt "$(last_checkpoint "${1##*/}")" ]; then return; fi
  run_program "$1/log.txt" "${launcher[@]}" "$program" eval --checkpoint "$1/run" --device "$device" --data "$2" \
    --bands-from "$train" --json "$3"
}

# judge FOLDER CODE: the status that follows from the exit code of the row's last command. What is wrong with a configuration
# has exit code 2, as what is wrong with a map that it asks for.
judge() {
  # 75: saved, and to be continued.
  if [ "$stopping" = yes ] || [ "$2" -eq 75 ]; then
    echo "stopped"
  elif [ "$2" -eq 2 ]; then
    echo "refused: $(reason "$1/log.txt" "$2")"
  else
    echo "failed: $(reason "$1/log.txt" "$2")"
  fi
}

# try_row ID NEEDS MAP WORDS OVERRIDES: sets `result`, the row's status.
try_row() {
  local id=$1 needs=$2 map=$3 words=$4 overrides=$5 folder=$out/rows/$1 code=0 source=()
  if [ "$map" != - ]; then
    if [ "$needs" != - ]; then
      result="failed: needs $needs, which is not done"
      [ "$(row_state "$needs")" = "done" ] || return 0
      source=(--from "$out/rows/$needs/run")
      if [ "${words%% *}" = refit ]; then source=(--checkpoint "$out/rows/$needs/run" --device "$device"); fi
    fi
    # shellcheck disable=SC2086  # words, as it says
    make_map "$out/maps/$map" "$folder/log.txt" $words "${source[@]}" || code=$?
  fi
  if [ $code -eq 0 ] && [ ! -e "$(last_checkpoint "$id")" ]; then
    train_row "$folder" "$id" "${overrides/#-/}" "$map" || code=$?
  fi
  [ $code -ne 0 ] || evaluate_row "$folder" "$heldout" "$folder/eval-in.json" || code=$?
  [ $code -ne 0 ] || [ -z "$ood" ] || evaluate_row "$folder" "$ood" "$folder/eval-ood.json" || code=$?
  result="done"
  if [ $code -ne 0 ]; then result=$(judge "$folder" $code); fi
}

# The GPUs of slot $1, where trainings share a machine of several; what CUDA_VISIBLE_DEVICES lists wins.
choose_gpus() {
  if [ "$device" != cuda ] || [ "$jobs" -eq 1 ]; then return; fi
  local all list=() i
  IFS=, read -ra all <<<"${CUDA_VISIBLE_DEVICES:-$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | paste -sd, || true)}"
  [ ${#all[@]} -gt 0 ] || return 0
  for ((i = $1 * ranks; i < ($1 + 1) * ranks; ++i)); do list+=("${all[i % ${#all[@]}]}"); done
  CUDA_VISIBLE_DEVICES=$(IFS=, && echo "${list[*]}")
  export CUDA_VISIBLE_DEVICES
}

say() { printf '%s  %-24s %s\n' "$(date +%H:%M:%S)" "$1" "$2"; }

run_row() {
  local slot=$1 id=$2 wanted="$6 map $4" began=$SECONDS folder=$out/rows/$2 result stopping=no was
  shift
  choose_gpus "$slot"
  mkdir -p "$folder"
  was=$(cat "$folder/overrides.txt" 2>/dev/null || true)
  if [ -e "$folder/run/config.toml" ] && [ "$wanted" != "$was" ]; then
    result="failed: was trained with other overrides ($was): remove $folder, or give the row another name"
  else
    echo "$wanted" >"$folder/overrides.txt"
    if [ -e "$folder/log.txt" ]; then mv "$folder/log.txt" "$folder/log.before.txt"; fi
    : >"$folder/log.txt"
    say "$id" "begins"
    try_row "$@"
  fi
  echo "$result" >"$folder/status"
  say "$id" "$result ($((SECONDS - began)) s)"
}

halted=no
slots=()  # process of each job, 0 where free

halt() {
  halted=yes
  local job
  for job in "${slots[@]}"; do
    if [ "$job" -ne 0 ]; then kill -TERM "$job" 2>/dev/null || true; fi
  done
}

# Waits until a slot is free, and sets `slot`.
free_slot() {
  while :; do
    for slot in "${!slots[@]}"; do
      if [ "${slots[slot]}" -ne 0 ] && ! kill -0 "${slots[slot]}" 2>/dev/null; then slots[slot]=0; fi
      if [ "${slots[slot]}" -eq 0 ]; then return; fi
    done
    wait -n || true
  done
}

wait_for_all() {
  local job
  for job in "${!slots[@]}"; do
    while [ "${slots[job]}" -ne 0 ] && kill -0 "${slots[job]}" 2>/dev/null; do wait "${slots[job]}" || true; done
    slots[job]=0
  done
}

run_all() {
  local id needs map words overrides slot wave=first
  for ((slot = 0; slot < jobs; ++slot)); do slots+=(0); done
  trap halt INT TERM HUP
  local cores
  cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores / (jobs * ranks) > 0 ? cores / (jobs * ranks) : 1))}
  export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
  while IFS=$'\t' read -r id needs map words overrides <&3; do
    # Rows that need others come last.
    if [ "$needs" != - ] && [ $wave = first ]; then
      wait_for_all
      wave=second
    fi
    if [ "$(row_state "$id")" = "done" ] && finished "$id" "$overrides map $map"; then
      say "$id" "is done already"
      continue
    fi
    free_slot
    [ $halted = no ] || break
    run_row "$slot" "$id" "$needs" "$map" "$words" "$overrides" 3<&- &
    slots[slot]=$!
    if [ $halted = yes ]; then halt; fi
  done 3<<<"$plan"
  wait_for_all
  trap - INT TERM HUP
}

# Whether the row that says done was trained as it is wanted now, and has all evaluations.
finished() {
  [ "$2" = "$(cat "$out/rows/$1/overrides.txt" 2>/dev/null)" ] && [ -e "$out/rows/$1/eval-in.json" ] &&
    { [ -z "$ood" ] || [ -e "$out/rows/$1/eval-ood.json" ]; }
}

# What is not done, and the exit code.
report_end() {
  local id rest done=0 code=0
  while IFS=$'\t' read -r id rest; do
    case $(row_state "$id") in
      done) done=$((done + 1)) ;;
      refused) echo "ablation: $id: $(cat "$out/rows/$id/status")" >&2 ;;
      *) echo "ablation: $id: $(cat "$out/rows/$id/status" 2>/dev/null || echo "not begun")" >&2; code=1 ;;
    esac
  done <<<"$plan"
  if [ $halted = yes ]; then echo "ablation: stopped; the same command goes on" >&2; fi
  if [ $done -eq 0 ]; then code=1; fi
  echo "results: $out/results.md ($done of $(wc -l <<<"$plan") rows)"
  exit $code
}
