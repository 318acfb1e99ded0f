#!/usr/bin/env bash
# Starts a command on several ranks under Open MPI's mpirun, with what a rank needs to have its cores to itself.
#   launch/mpirun.sh -n 4 build/vqlm train --config configs/smoke.toml
#       four ranks on this machine, its cores shared out
#   launch/mpirun.sh --hosts hosts.txt --ranks-per-node 8 build/vqlm train --config configs/gpt2-small-vq.toml
#       eight ranks, each bound to its share of the cores, on every machine of hosts.txt (one name a line; all with the
#       same cores, the same folders and ssh between them)
# On GPU machines start as many ranks as a machine has GPUs and put launch/near_gpu.sh before the command: local rank r takes
# GPU r, and the cores near it.
# SIGTERM, SIGHUP, SIGUSR1 and the first Ctrl-C reach the ranks as SIGUSR1, so that training saves a checkpoint and ends
# with exit code 75; other commands just end: 130 after Ctrl-C, 143 after SIGTERM. A second Ctrl-C kills all. (mpirun
# itself answers SIGTERM and Ctrl-C with SIGKILL for its ranks.) The exit code is the ranks'; what mpirun has to say of
# ranks that left with one of their own is left out.
set -euo pipefail

usage() {
  if [ $# -gt 0 ]; then echo "mpirun.sh: $*" >&2; fi
  sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}

ranks=""
hosts=""
per_node=""
while [ $# -gt 0 ]; do
  case "$1" in
    -n) ranks=${2:-}; shift 2 || usage "-n needs a number of ranks" ;;
    --hosts) hosts=${2:-}; shift 2 || usage "--hosts needs a file" ;;
    --ranks-per-node) per_node=${2:-}; shift 2 || usage "--ranks-per-node needs a number of ranks" ;;
    -*) usage "unknown option $1" ;;
    *) break ;;
  esac
done
[ $# -gt 0 ] || usage "no command to start"
if [ -n "$ranks" ] && [ -n "$hosts$per_node" ]; then
  usage "-n is for this machine and goes with neither --hosts nor --ranks-per-node; choose one way"
fi
if [ -n "$per_node" ] && [ -z "$hosts" ]; then usage "--ranks-per-node needs --hosts; on this machine use -n"; fi

whole_number() { [[ "$1" =~ ^[1-9][0-9]*$ ]]; }

# nproc obeys OMP_NUM_THREADS, which says what a rank shall use and not what the machine has.
cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
options=()
if [ -n "$hosts" ]; then
  whole_number "$per_node" || usage "--ranks-per-node ${per_node:-(missing)}: choose a whole number above 0"
  [ -r "$hosts" ] || { echo "mpirun.sh: cannot read the host list $hosts" >&2; exit 2; }
  nodes=$(grep -cv '^[[:space:]]*\(#\|$\)' "$hosts" || true)
  [ "$nodes" -gt 0 ] || { echo "mpirun.sh: the host list $hosts names no machine; write one name a line" >&2; exit 2; }
  threads=$((cores / per_node > 0 ? cores / per_node : 1))
  options+=(-n $((nodes * per_node)) --hostfile "$hosts" --map-by "ppr:$per_node:node:PE=$threads" --bind-to core)
else
  whole_number "$ranks" || usage "-n ${ranks:-(missing)}: choose a whole number above 0"
  threads=$((cores / ranks > 0 ? cores / ranks : 1))
  # Unbound: one machine may run other things too, and two bound jobs would sit on the same first cores.
  options+=(-n "$ranks" --bind-to none --oversubscribe)
  # Ranks that share cores must give them up while they wait.
  if [ "$ranks" -ge "$cores" ]; then options+=(--mca mpi_yield_when_idle 1); fi
fi

# Threads that wait must not spin where ranks share cores; what the caller exports wins.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$threads}
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
options+=(-x OMP_NUM_THREADS -x OMP_WAIT_POLICY)
# mpirun reads the ranks' output through a pipe, so they cannot see that it ends at a terminal.
if [ -t 2 ]; then options+=(-x VQLM_TERMINAL=1); fi
if [ "$(id -u)" -eq 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi

# mpirun surrounds what it says by lines of dashes. Its reports of ranks that ended by themselves or by our signal say
# nothing that the program has not said better; anything else passes, unfinished lines (progress) after a moment. (mpirun
# --quiet would also hide why a job cannot start.)
is_noise() {
  local said=${1#*$'\n'}
  case "$said" in
    "Primary job "*"a non-zero"* | "mpirun detected "*"exited with non-zero status"* | "MPI_ABORT was invoked on rank"*) ;;
    "mpirun noticed "*"exited on signal 10 (User defined signal 1)"*) ;;
    *) return 1 ;;
  esac
}
# What mpirun says when it hands a signal on, and whether a line that has not ended could become that, or dashes.
forwarding="mpirun: Forwarding signal "
may_be_left_out() { [[ "$1" == -* || "$1" == "$forwarding"* || "$forwarding" == "$1"* ]]; }
pass_on() {
  local part="" line="" block="" more status
  trap '' INT TERM HUP USR1
  while :; do
    status=0
    IFS= read -r -t 0.1 part || status=$?
    line+=$part
    # More than 128: no line end in time. What may be left out waits for the rest of its line.
    if [ $status -gt 128 ]; then
      if [ -z "$block" ] && [ -n "$line" ] && ! may_be_left_out "$line"; then printf '%s' "$line"; line=""; fi
      continue
    fi
    more=$line
    [ $status -ne 0 ] || more+=$'\n'
    line=""
    if [[ "$more" =~ ^-{60,}$'\n'$ ]]; then
      block+=$more
      if [ "$block" = "$more" ]; then continue; fi
      is_noise "$block" || printf '%s' "$block"
      block=""
    elif [ -n "$block" ]; then
      block+=$more
      if [ ${#block} -gt 10000 ]; then printf '%s' "$block"; block=""; fi
    elif [[ "$more" != "$forwarding"* ]]; then
      printf '%s' "$more"
    fi
    if [ $status -ne 0 ]; then printf '%s' "$block"; return; fi
  done
}

signalled=no
interrupts=0
own_end=0  # the exit code of a command that the signal ended
# forward SIGNAL: to mpirun, which hands SIGUSR1 on to every rank.
forward() {
  signalled=yes
  kill "-$1" "$job" 2>/dev/null || true  # it may have ended meanwhile
}
interrupt() {
  interrupts=$((interrupts + 1))
  own_end=130
  if [ "$interrupts" -eq 1 ]; then forward USR1; else forward TERM; fi
}

exec {errors}> >(pass_on >&2)
filter=$!
# With job control (-m) mpirun has a process group of its own, which the terminal's Ctrl-C does not reach.
set -m
mpirun "${options[@]}" "$@" </dev/null 2>&"$errors" {errors}>&- &
job=$!
set +m
exec {errors}>&-
trap 'own_end=143; forward USR1' TERM HUP USR1
trap interrupt INT

# A signal ends `wait` early; wait again until it returns mpirun's own exit status.
status=0
while :; do
  signalled=no
  status=0
  wait "$job" || status=$?
  if [ "$signalled" = no ]; then break; fi
done
wait "$filter" || true  # its last words
# 138: SIGUSR1 ended a command that does not ask for it; the second Ctrl-C ends any, however mpirun puts that.
if [ "$own_end" -ne 0 ] && { [ "$status" -eq 138 ] || [ "$interrupts" -gt 1 ]; }; then status=$own_end; fi
if [ "$status" -gt 128 ] && [ "$status" -ne "$own_end" ]; then
  why=""
  if [ "$status" -eq 137 ]; then why="; often the kernel, for want of memory"; fi
  echo "mpirun.sh: a rank was ended by signal $((status - 128)) ($(kill -l "$status" || true))$why" >&2
fi
exit "$status"
