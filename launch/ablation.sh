#!/usr/bin/env bash
# Trains and evaluates a grid of output heads with the same body, batches and seeds, and writes tables and plots.
#   launch/ablation.sh --shards shards --out study
#       configs/ablation-heads.txt over configs/ablation.toml; results in study/results.md
#   launch/ablation.sh --shards shards --ood 'ood/heldout-*.h5' --out study --seeds 0,1,2 --jobs 4
#       three seeds of each head, four trainings side by side, evaluated on text of another kind, too
#   launch/ablation.sh --shards c4 --out study --ranks 2 --jobs 4 --device cuda --base my.toml --heads dense,vq,vq-1
#       two GPUs a training, four trainings on a machine of eight, these heads
# Options:
#   --shards DIR      what `vqlm prepare` made: train-*.h5 and heldout-*.h5
#   --out DIR         folder of the study
#   --ood GLOB        shards of other held-out text, of the same tokenizer
#   --base FILE       configuration of all rows (configs/ablation.toml)
#   --set KEY=VALUE   over it, for all rows (may be repeated)
#   --steps N         train.steps in place of the configuration's
#   --grid FILE       the heads (configs/ablation-heads.txt)
#   --heads A,B       some of them; the baseline and what they need are added (all)
#   --seeds 0,1       train.seed of the repetitions: weights, map and order of samples (0)
#   --jobs N          trainings side by side (1)
#   --ranks N         ranks of each (1)
#   --device D        cpu, cuda or auto (auto)
#   --program FILE    vqlm (build/vqlm)
#   --dry-run         list the rows and what is done of them
#   --tables-only     write tables and plots of what is done
# The same command again goes on where it was: finished rows are skipped, interrupted ones resumed. Ctrl-C and SIGTERM save
# checkpoints first. A row whose configuration the program refuses is listed so; one that fails stops no other, is named at
# the end, and makes the exit code 1. docs/ablation.md says more.
set -euo pipefail
home=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  echo "ablation: $*" >&2
  exit 2
}

shards="" out="" ood="" base=$home/configs/ablation.toml grid=$home/configs/ablation-heads.txt heads=all seeds=0 steps=""
jobs=1 ranks=1 device=auto program=$home/build/vqlm mode=run
sets=()
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    --dry-run | --tables-only) mode=${1#--}; shift; continue ;;
    --shards | --out | --ood | --base | --set | --steps | --grid | --heads | --seeds | --jobs | --ranks | --device | --program) ;;
    *) usage "unknown option $1; launch/ablation.sh --help lists them" ;;
  esac
  if [ $# -lt 2 ] || [ -z "$2" ]; then usage "$1 needs a value"; fi
  if [ "$1" = --set ]; then sets+=("$2"); else printf -v "${1#--}" %s "$2"; fi
  shift 2
done
[ -n "$shards" ] || usage "name the folder of the shards with --shards"
[ -n "$out" ] || usage "name a folder for the study with --out"
for count in jobs ranks ${steps:+steps}; do
  [[ "${!count}" =~ ^[1-9][0-9]*$ ]] || usage "--$count ${!count}: choose a whole number above 0"
done
[[ "$device" =~ ^(cpu|cuda|auto)$ ]] || usage "--device $device: choose cpu, cuda or auto"
[ -x "$program" ] || usage "$program: not there; build it with launch/build.sh, or name it with --program"
for file in "$base" "$grid"; do [ -r "$file" ] || usage "$file: cannot read that file"; done
compgen -G "$shards/train-*.h5" >/dev/null || usage "--shards $shards: no train-*.h5 there; make some with vqlm prepare"
compgen -G "$shards/heldout-*.h5" >/dev/null || usage "--shards $shards: no heldout-*.h5 there; say --heldout to vqlm prepare"
[ -z "$ood" ] || compgen -G "$ood" >/dev/null || usage "--ood $ood: no such files"

out=$(realpath -m "$out")
shards=$(realpath "$shards")
if [ -n "$ood" ]; then ood=$(realpath "$(dirname "$ood")")/$(basename "$ood"); fi
train="$shards/train-*.h5"
heldout="$shards/heldout-*.h5"
rows_tool() { python3 -B "$home/launch/ablation/ablation_rows.py" --base "$base" --program "$program" "${sets[@]/#/--set=}" "$@"; }
steps=${steps:-$(rows_tool --steps)}

# What may not change between two calls: all rows of a study are trained and evaluated alike.
settings() {
  printf 'shards %s\nsteps %s\ndevice %s\n' "$shards" "$steps" "$device"
  for word in "${sets[@]}"; do printf 'set %s\n' "$word"; done
}

# The other held-out text may be named later, but then it stays.
check_ood() {
  if [ -n "$ood" ] && [ ! -e "$out/ood.txt" ]; then echo "$ood" >"$out/ood.txt"; fi
  if [ ! -e "$out/ood.txt" ]; then return; fi
  local was
  was=$(cat "$out/ood.txt")
  [ "${ood:-$was}" = "$was" ] || usage "--ood $ood: the rows of this study were evaluated on $was: name that, or choose another --out"
  ood=$was
}

check_same_study() {
  local was=$out/settings.txt
  if [ ! -e "$was" ]; then
    mkdir -p "$out/rows" "$out/maps"
    cp "$base" "$out/base.toml"
    settings >"$was.partial"
    mv "$was.partial" "$was"  # last: with it the study is there
  fi
  check_ood
  if ! cmp -s "$base" "$out/base.toml"; then
    usage "--base $base: differs from the one that this study began with, $out/base.toml: put it back, or choose another --out"
  fi
  local difference
  difference=$({ diff <(settings) "$was" || true; } | sed -n 's/^\([<>].*\)/\1;/p' | tr '\n' ' ')
  [ -z "$difference" ] || usage "--out $out: the study began with other settings (< now, > then: ${difference%; }): put them back, or choose another --out"
  if [ ! -e "$out/configuration.toml" ]; then
    rows_tool --configuration >"$out/configuration.toml.partial"
    mv "$out/configuration.toml.partial" "$out/configuration.toml"
  fi
}

# The vocabulary of the shards: a map of one cluster tells it.
vocabulary() {
  local folder said
  folder=$(mktemp -d)
  said=$("$program" codes make --data "$train" --max-tokens 1 --map contiguous --clusters 1 --groups 0 --out "$folder/map.h5" 2>&1) ||
    { rm -r "$folder"; echo "ablation: $said" >&2; return 1; }
  rm -r "$folder"
  sed -n 's/.*: \([0-9]*\) tokens in 1 clusters.*/\1/p' <<<"$said"
}

# SciPy makes the tables' intervals: whichever Python has it.
write_tables() {
  local python=python3
  if ! python3 -c 'import scipy' 2>/dev/null && /usr/bin/python3 -c 'import scipy' 2>/dev/null; then python=/usr/bin/python3; fi
  $python -B "$home/launch/ablation/ablation_tables.py" "$out" --grid "$grid"
}

. "$home/launch/ablation/ablation_job.sh"

vocab=$(vocabulary)
plan=$(rows_tool --grid "$grid" --vocab "$vocab" --heads "$heads" --seeds "$seeds")
if [ "$mode" = dry-run ]; then
  if [ -e "$out/settings.txt" ]; then check_same_study; fi
  echo "$plan" | while IFS=$'\t' read -r id needs map words overrides; do
    printf '%-24s %-10s %s%s\n' "$id" "$(row_state "$id")" "$overrides" "$([ "$map" = - ] || printf '  map %s' "$map")"
  done
  exit 0
fi
check_same_study
if [ "$mode" = tables-only ]; then
  write_tables
  exit 0
fi

exec {lock}>"$out/lock"
flock -n "$lock" || usage "--out $out: another ablation.sh is at work there; wait for it, or stop it"
run_all
write_tables
report_end
