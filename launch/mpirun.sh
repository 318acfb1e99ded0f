#!/usr/bin/env bash
# Starts a command on several ranks under Open MPI's mpirun, with what a rank needs to have its cores to itself.
#   launch/mpirun.sh -n 4 build/vqlm train --config configs/smoke.toml
#       four ranks on this machine, its cores shared out
#   launch/mpirun.sh --hosts hosts.txt --ranks-per-node 8 build/vqlm train --config configs/gpt2-small-vq.toml
#       eight ranks, each bound to its share of the cores, on every machine of hosts.txt (one name a line; all with the
#       same cores, the same folders and ssh between them)
set -euo pipefail

usage() {
  sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}

ranks=""
hosts=""
per_node=""
while [ $# -gt 0 ]; do
  case "$1" in
    -n) ranks=${2:-}; shift 2 || usage ;;
    --hosts) hosts=${2:-}; shift 2 || usage ;;
    --ranks-per-node) per_node=${2:-}; shift 2 || usage ;;
    -*) usage ;;
    *) break ;;
  esac
done
[ $# -gt 0 ] || usage

whole_number() { [[ "$1" =~ ^[1-9][0-9]*$ ]]; }

cores=$(nproc)
options=()
if [ -n "$hosts" ]; then
  whole_number "$per_node" || usage
  [ -r "$hosts" ] || { echo "mpirun.sh: cannot read the host list $hosts" >&2; exit 2; }
  nodes=$(grep -cv '^[[:space:]]*\(#\|$\)' "$hosts")
  threads=$((cores / per_node > 0 ? cores / per_node : 1))
  options+=(-n $((nodes * per_node)) --hostfile "$hosts" --map-by "ppr:$per_node:node:PE=$threads" --bind-to core)
else
  whole_number "$ranks" || usage
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

exec mpirun "${options[@]}" "$@"
