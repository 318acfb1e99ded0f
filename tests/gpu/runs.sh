# What the two runs on a rented card have in common (first_run.sh, second_run.sh): options, stages that end within their
# budgets, and after each of them the table and one archive of all results, so that a run that is cut off loses one stage.
# Sourced by scripts that have set `here`, `run`, `whole_limit` and `usage`.
# shellcheck shell=bash disable=SC2034,SC2154
root=$(cd "$here/../.." && pwd)
runs_options=(
  '  --bin DIR      where the programs are (default: bin beside configs in a bundle, else build)'
  '  --runner P     put before each of them: run.sh of a bundle (default: that one where it exists)'
  '  --shards DIR   train-*.h5 and heldout-*.h5; without, small ones are made from the documentation'
  '  --python P     a Python with PyTorch for the peers (default: python3)'
  '  --only A,B     these stages alone'
  '  --dry-run      list the stages with their budgets, and the sum of these'
  '  --simt         the same stages, tiny, with the programs of the host executor: tests this script where no GPU is'
  '  --quick        with --simt: without the PyTorch peers'
  'The archive is ${OUT:-build/gpu-results}/RUN.tar.gz, logs lie in ${WORK:-build/gpu-logs}/RUN. Exit status: 1 where a stage'
  'failed. A stage that cannot run here (no ncu, no compute-sanitizer) is skipped and says why; without PyTorch the figures'
  'say that they hold no ratio.')
help() { printf '%s\n' "$usage" "${runs_options[@]}"; }

parse_options() {
  bin='' runner=() shards='' python=python3 only='' dry=no simt=no quick=no
  [ ! -d "$root/bin" ] || bin=$root/bin
  while [ $# -gt 0 ]; do
    case $1 in
      --bin) bin=$(cd "$2" && pwd) || exit 2; shift 2 ;;
      --runner) runner=("$(realpath "$2")"); shift 2 ;;
      --shards) shards=$(cd "$2" && pwd) || exit 2; shift 2 ;;
      --python) python=$2; shift 2 ;;
      --only) only=,$2,; shift 2 ;;
      --dry-run) dry=yes; shift ;;
      --simt) simt=yes; shift ;;
      --quick) quick=yes; shift ;;
      --help|-h) help; exit 0 ;;
      *) echo "$run.sh: unknown option $1; --help lists them" >&2; exit 2 ;;
    esac
  done
  bin=${bin:-$root/build}
  if [ ${#runner[@]} -eq 0 ] && [ -x "$bin/../run.sh" ]; then runner=("$(realpath "$bin/../run.sh")"); fi
  if [ -z "$shards" ] && compgen -G "$root/shards/train-*.h5" >/dev/null; then shards=$root/shards; fi
  vqlm=vqlm cuda_tests=cuda_tests nccl_ranks=nccl_ranks_native
  [ $simt = no ] || vqlm=vqlm_simt cuda_tests=cuda_tests_simt nccl_ranks=nccl_ranks
}

# ---- running -----------------------------------------------------------------------------------------------------------
skip=77          # exit status of a stage that cannot run here
no_time=78       # of one that was not started
packing=1        # seconds of every stage for the table and the archive
budgets=$packing # of all stages

# limited COMMAND...: ended two seconds before the stage's time is over, so that one which must be killed is gone by then.
limited() {
  local seconds=$((stage_end - SECONDS - 2))
  [ "$seconds" -gt 0 ] || { echo "no time left for $*"; return 124; }
  echo "+ $*"
  timeout -k 2 "$seconds" "$@"
}
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
# trained NAME OPTIONS...: a training on the card; of its folder NAME/metrics.jsonl and config.toml are kept. Its last checkpoint
# is gigabytes, so it goes to memory where there is room.
trained() {
  local name=$1 status=0; shift
  ours "$vqlm" train --set run.device=cuda --set parallel.tensor=1 --set checkpoint.every=0 --set run.dir="$scratch/$name" \
    --set "data.train=$shards/train-*.h5" "$@" || status=$?
  mkdir -p "$work/$name"
  cp "$scratch/$name/metrics.jsonl" "$scratch/$name/config.toml" "$work/$name/" 2>/dev/null || true
  rm -rf "${scratch:?}/$name"
  return $status
}
figures() { "$python" -B "$here/figures.py" "$@" | tee "$work/figures"; }
# both OURS PEER COMPARE: a failure of one of the first two is the stage's, and neither stops the other.
both() { local status=0; "$1" || status=$?; "$2" || status=$?; "$3" || true; return $status; }
# Shards for --shards: those given, or small ones from the documentation, whose text is at hand everywhere.
own_shards() {
  if [ -z "$shards" ]; then
    shards=$work/shards
    compgen -G "$shards/train-*.h5" >/dev/null || {
      cat "$root"/docs/*.md >"$work/docs.txt"
      ours "$vqlm" prepare --input "$work/docs.txt" --train-tokenizer 512 --heldout 0.1 --out "$shards"
    }
  fi
}

begin_run() {
  parse_options "$@"
  out=${OUT:-$root/build/gpu-results} work=${WORK:-$root/build/gpu-logs}/$run
  stage_end=0
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PYTHON=$python
  [ $dry = no ] || return 0
  # Results of an earlier run must not stand in for one that fails now.
  rm -rf "$work" "$out/$run.tar.gz"
  mkdir -p "$out" "$work" && out=$(cd "$out" && pwd) && work=$(cd "$work" && pwd) || exit 2
  archive=$out/$run.tar.gz table=$work/table.tsv scratch=$work/scratch
  : >"$table"
  if [ $simt = no ] && [ "$(df --output=avail -BG /dev/shm 2>/dev/null | tail -1 | tr -dc 0-9)0" -ge 80 ]; then
    scratch=$(mktemp -d /dev/shm/vqlm-XXXXXX) || exit 2
  fi
  SECONDS=0 sampler=''
  trap 'kill $sampler 2>/dev/null; rm -rf "$scratch"' EXIT
  if [ $simt = no ] && command -v nvidia-smi >/dev/null; then
    stdbuf -oL nvidia-smi --query-gpu=clocks.sm,power.draw,temperature.gpu,utilization.gpu,memory.used \
      --format=csv,noheader,nounits -lms 250 >"$work/card.csv" 2>"$work/card.log" &
    sampler=$!
  fi
}

# Results in their form of now, whole at every moment: text only, of a long file the two ends.
pack() {
  local file list=$work/packed
  "$python" -B "$here/figures.py" table "$table" >"$work/table.txt" || true
  (cd "$work" && find . -type f \( -name '*.log' -o -name '*.txt' -o -name '*.tsv' -o -name '*.json' -o -name '*.jsonl' \
    -o -name '*.csv' -o -name config.toml \) ! -path "*/shards/*" ! -name docs.txt >"$list"
   while read -r file; do
     if [ "$(stat -c %s "$file")" -gt 2097152 ]; then
       { head -c 524288 "$file"; printf '\n... (cut)\n'; tail -c 524288 "$file"; } >"$file.cut" && mv "$file.cut" "$file"
     fi
   done <"$list"
   tar -czf "$archive.part" -T "$list" && mv "$archive.part" "$archive")
}

# stage NAME BUDGET FUNCTION WHAT: runs it in a subshell, its words in NAME.log; not longer than BUDGET seconds.
stage() {
  local name=$1 budget=$2 function=$3 what=$4 begin=$SECONDS status samples=0
  [ -z "$only" ] || [[ $only == *",$name,"* ]] || return 0
  budgets=$((budgets + budget + packing))
  if [ $dry = yes ]; then printf '%-14s %4d s  %s\n' "$name" "$budget" "$what"; return 0; fi
  stage_end=$((SECONDS + budget < whole_limit ? SECONDS + budget : whole_limit))
  : >"$work/figures"
  [ ! -e "$work/card.csv" ] || samples=$(wc -l <"$work/card.csv")
  if [ "$stage_end" -le "$SECONDS" ]; then
    status=$no_time
    echo "no time left: --only $name" | tee "$work/figures" >"$work/$name.log"
  else
    (set -e; cd "$root"; "$function") >"$work/$name.log" 2>&1
    status=$?
  fi
  case $status in
    0) status=passed ;;
    "$skip") status=skipped; tail -1 "$work/$name.log" >"$work/figures" ;;
    "$no_time") status='not run' ;;
    124|137) status='timed out' ;;
    127) status=missing; grep -m1 '^no ' "$work/$name.log" >"$work/figures" ;;
    *)
      status="failed ($status)"
      [ -s "$work/figures" ] || grep -m1 'vqlm: error: ' "$work/$name.log" >"$work/figures" ||
        tail -1 "$work/$name.log" >"$work/figures" ;;
  esac
  [ ! -e "$work/card.csv" ] || "$python" -B "$here/figures.py" card "$work/card.csv" "$samples" >>"$work/figures"
  printf '%s\t%s\t%s\t%s\n' "$name" "$status" $((SECONDS - begin)) "$(paste -sd' ' "$work/figures")" >>"$table"
  pack
  cat "$work/table.txt"
}

end_run() {
  if [ $dry = yes ]; then
    printf '%-14s %4d s  of at most %d\n' 'in all' "$budgets" "$whole_limit"
    [ "$budgets" -le "$whole_limit" ]
    return
  fi
  echo "results: $archive"
  "$python" -B "$here/figures.py" table "$table" >/dev/null
}
