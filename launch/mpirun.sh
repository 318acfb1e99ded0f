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
# with exit code 0; a second Ctrl-C kills them. (mpirun itself answers SIGTERM and Ctrl-C with SIGKILL for its ranks.)
set -euo pipefail

usage() {
  if [ $# -gt 0 ]; then echo "mpirun.sh: $*" >&2; fi
  sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
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

signalled=no
interrupts=0
# forward SIGNAL: to mpirun, which hands SIGUSR1 on to every rank.
forward() {
  signalled=yes
  kill "-$1" "$job" 2>/dev/null || true  # it may have ended meanwhile
}
interrupt() {
  interrupts=$((interrupts + 1))
  if [ "$interrupts" -eq 1 ]; then forward USR1; else forward TERM; fi
}

# With job control (-m) mpirun has a process group of its own, which the terminal's Ctrl-C does not reach.
set -m
mpirun "${options[@]}" "$@" </dev/null &
job=$!
set +m
trap 'forward USR1' TERM HUP USR1
trap interrupt INT

# A signal ends `wait` early; wait again until it returns mpirun's own exit status.
status=0
while :; do
  signalled=no
  status=0
  wait "$job" || status=$?
  [ "$signalled" = yes ] || exit "$status"
done
