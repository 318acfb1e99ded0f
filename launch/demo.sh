#!/usr/bin/env bash
# From text to three evaluated models on one machine, trained on a 2 x 2 grid of ranks: a VQ head, and dense ones with a matrix
# of their own and with the input embedding's.
#   launch/demo.sh                                    the kernel documentation of the distribution's linux-doc package
#   C4='c4-train.00000-of-01024.json.gz' launch/demo.sh    C4 files (or other JSON lines), as many as you like
#   DEMO_MINUTES=60 launch/demo.sh                    about an hour instead of 15 to 20 minutes (on 2 cores): more steps;
#                                                     8 or less take about 8
#   DEMO_DIR=/scratch/demo launch/demo.sh             another folder than demo/
# What is done already is not done again: installed packages, the build, text, shards, finished runs, evaluations.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. launch/packages.sh

demo=${DEMO_DIR:-demo}
minutes=${DEMO_MINUTES:-15}
if ! [[ "$minutes" =~ ^[1-9][0-9]*$ ]]; then
  echo "demo: DEMO_MINUTES=$minutes must be a whole number of minutes" >&2
  exit 2
fi
# Estimated: on 2 cores set-up, preparing and evaluating take about 7 minutes, 30 steps of all three models about one. One minute of
# steps is the least.
steps=$(((minutes > 8 ? minutes - 7 : 1) * 30))

say() { printf '\n== %s (%d min %02d s so far)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60)); }

# A folder of linux-doc that holds documents, best its Documentation; distributions lay it out differently. Fails
# without one.
documentation_folder() {
  local folder
  for folder in /usr/share/doc/linux-doc*/Documentation/ /usr/share/doc/linux-doc*/; do
    if [ -n "$(find "$folder" -name '*.rst*' -print -quit 2>/dev/null)" ]; then
      echo "$folder"
      return
    fi
  done
  return 1
}

# Slim containers leave out /usr/share/doc when they install packages (dpkg's path-exclude); this asks for it again.
install_documentation() {
  local include=(-o 'Dpkg::Options::=--path-include=/usr/share/doc/linux-doc*') packages
  mapfile -t packages < <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 'linux-doc*' 2>/dev/null |
    awk '$1 == "installed" { print $2 }')
  if [ ${#packages[@]} -gt 0 ]; then
    apt_install "${include[@]}" --reinstall "${packages[@]}"
  else
    apt_install "${include[@]}" linux-doc
  fi
}

# Sets the array `text` to the input files.
find_text() {
  if [ -n "${C4:-}" ]; then
    # shellcheck disable=SC2206  # word splitting and patterns are wanted: C4 lists files
    text=($C4)
    local file
    for file in "${text[@]}"; do
      [ -r "$file" ] || { echo "demo: C4=$file: cannot read that file" >&2; exit 1; }
    done
    return
  fi
  # The last of the files that linux_doc_to_c4.py renames into place: with it the others are there.
  if [ ! -e "$demo/text/c4-train.00003-of-00004.json.gz" ]; then
    local folder=""
    if ! { install_missing python3 && { documentation_folder >/dev/null || install_documentation; } &&
      folder=$(documentation_folder) && python3 launch/linux_doc_to_c4.py "$folder" "$demo/text"; }; then
      echo "demo: no text in /usr/share/doc/linux-doc*: name some, for example" \
        "C4='c4-train.00000-of-01024.json.gz' launch/demo.sh" >&2
      exit 1
    fi
  fi
  text=("$demo"/text/c4-train.*.json.gz)
}

# Shards of other text must not slip into a demo's folder.
check_same_text() {
  mkdir -p "$demo"
  local list
  list=$(printf '%s\n' "${text[@]}")
  if [ -e "$demo/inputs.txt" ] && [ "$list" != "$(cat "$demo/inputs.txt")" ]; then
    echo "demo: $demo/ was made from other text (see $demo/inputs.txt); remove it or choose another DEMO_DIR" >&2
    exit 1
  fi
  printf '%s\n' "$list" >"$demo/inputs.txt"
}

last_checkpoint() { printf '%s/%s/checkpoints/step-%08d/manifest.json' "$demo" "$1" "$steps"; }

# train_model KIND: resumes a run of the same length, replaces one of another length.
train_model() {
  local run=$demo/$1 existing=()
  if [ -e "$(last_checkpoint "$1")" ]; then
    echo "demo: $run has its $steps steps already"
    return
  fi
  if [ -e "$run/config.toml" ]; then
    if grep -qx "steps = $steps" "$run/config.toml" && compgen -G "$run/checkpoints/step-*/manifest.json" >/dev/null; then
      existing=(--resume)
    else
      existing=(--force)
    fi
  fi
  # On the CPU also where a GPU is: four ranks would want four of them.
  launch/mpirun.sh -n 4 build/vqlm train --config "configs/demo-$1.toml" --device cpu \
    --set "data.train=$demo/shards/train-*.h5" --set "data.heldout=$demo/shards/heldout-*.h5" \
    --set "train.steps=$steps" --set "train.eval_every=$((steps / 4))" --set "run.dir=$run" "${existing[@]}"
}

evaluate_model() {
  local run=$demo/$1
  if [ "$run/eval.json" -nt "$(last_checkpoint "$1")" ]; then
    echo "demo: $run is evaluated already"
    return
  fi
  launch/mpirun.sh -n 2 build/vqlm eval --checkpoint "$run" --device cpu --data "$demo/shards/heldout-*.h5" \
    --json "$run/eval.json"
}

say "packages and build"
# It trains on the CPU: without a GPU here, kernels for one would only be waited for. A build that has them keeps them.
if [ ! -e build/CMakeCache.txt ] && ! command -v nvidia-smi >/dev/null; then export VQLM_CUDA=${VQLM_CUDA:-OFF}; fi
VQLM_CUDA=${VQLM_CUDA:-$(sed -n 's/^VQLM_CUDA:STRING=//p' build/CMakeCache.txt 2>/dev/null)} launch/build.sh --no-tests

say "text and shards"
find_text
check_same_text
build/vqlm prepare --input "${text[@]}" --train-tokenizer 16000 --heldout 0.05 --out "$demo/shards"

for kind in vq dense tied; do
  say "training the $kind model, $steps steps"
  train_model "$kind"
done
for kind in vq dense tied; do
  say "evaluating the $kind model on the held-out documents"
  evaluate_model "$kind"
done

say "results"
build/vqlm report "$demo/vq" "$demo/dense" "$demo/tied" --plot "$demo/loss.svg"
printf '\nLoss curves: %s/loss.svg   (%d min %02d s in all)\n' "$demo" $((SECONDS / 60)) $((SECONDS % 60))
