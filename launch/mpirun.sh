#!/usr/bin/env bash
# Starts a command on several ranks by the mpirun of Open MPI or MPICH, with what a rank needs to have its cores for
# itself.
#   launch/mpirun.sh -n 4 build/vqlm train --config configs/smoke.toml
#       four ranks on this machine, its cores shared out (inside a Slurm allocation: on the allocation's hosts)
#   launch/mpirun.sh --hosts hosts.txt --ranks-per-node 8 build/vqlm train --config configs/gpt2-small-vq.toml
#       eight ranks, each bound to its share of the cores, on every machine of hosts.txt (one name a line, slots=N and
#       # comments behind it; all with the same cores, the same folders and ssh between them)
#   launch/mpirun.sh --restarts 5 --spare-hosts spares.txt --hosts hosts.txt --ranks-per-node 8 build/vqlm train ...
#       a training that fails is continued, without the hosts that are at fault
# Options, before the command:
#   -n N                  ranks; with --hosts N in all, --ranks-per-node on each of the first hosts
#   --interface NET       the network between the hosts: an interface (eth0), a subnet (10.1.0.0/16; Open MPI only), or
#                         several with commas between them. Name it where hosts have other networks, too, such as
#                         docker0
#   --env NAME[=VALUE]    a further environment variable for the ranks (may be repeated). LD_LIBRARY_PATH,
#                         HDF5_USE_FILE_LOCKING, CUDA_*, FI_*, NCCL_*, OMP_*, UCX_* and VQLM_* reach all ranks unasked
#   --mpirun-option WORD  a word for mpirun itself (may be repeated)
#   --rank-logs DIR       what each rank says also goes to files of its own under DIR, on its host
#   --oversubscribe       more ranks than cores on a host: unbound
#   --restarts N          goes on after a failure, at most N times: launch/restarts.py --help says how
#   --spare-hosts FILE    hosts that take the place of lost ones
# VQLM_MPIRUN names the mpirun (mpirun); which MPI's it is, --version tells. OMPI_MCA_* and the like that are exported
# already stay as they are.
# On GPU machines start as many ranks as a machine has GPUs and put launch/near_gpu.sh before the command: local rank r
# takes GPU r, and the cores near it.
# SIGTERM, SIGHUP, SIGUSR1 and the first Ctrl-C reach the ranks as SIGUSR1, so that training saves a checkpoint and ends
# with exit code 75; other commands just end: 130 after Ctrl-C, 143 after SIGTERM. A second Ctrl-C kills all. (mpirun
# itself answers SIGTERM and Ctrl-C with SIGKILL for its ranks.) The exit code is the ranks'; what mpirun has to say of
# ranks that left with one of their own is left out.
set -euo pipefail
home=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")

help() { sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }
usage() {
  if [ $# -gt 0 ]; then echo "mpirun.sh: $*" >&2; else help >&2; fi
  exit 2
}

ranks="" hosts="" per_node="" interface="" rank_logs="" oversubscribe=no restarts="" spare_hosts=""
variables=() extra=() kept=()
given=$#
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) help; exit 0 ;;
    -n | --hosts | --ranks-per-node | --interface | --env | --mpirun-option | --rank-logs | --restarts | --spare-hosts)
      if [ $# -lt 2 ] || [ -z "$2" ]; then usage "$1 needs a value; launch/mpirun.sh --help says which"; fi ;;
  esac
  case "$1" in
    -n) ranks=$2 ;;
    --hosts) hosts=$2 ;;
    --ranks-per-node) per_node=$2 ;;
    --interface) interface=$2; kept+=("$1" "$2") ;;
    --env) variables+=("$2"); kept+=("$1" "$2") ;;
    --mpirun-option) extra+=("$2"); kept+=("$1" "$2") ;;
    --rank-logs) rank_logs=$2 ;;
    --restarts) restarts=$2 ;;
    --spare-hosts) spare_hosts=$2 ;;
    --oversubscribe) oversubscribe=yes; kept+=("$1"); shift; continue ;;
    -*) usage "unknown option $1; launch/mpirun.sh --help lists them" ;;
    *) break ;;
  esac
  shift 2
done
[ "$given" -gt 0 ] || usage
[ $# -gt 0 ] || usage "no command to start; launch/mpirun.sh --help says how"

. "$home/mpi_options.sh"
whole_number() { [[ "$1" =~ ^[1-9][0-9]*$ ]]; }
if [ -n "$per_node" ] && [ -z "$hosts" ]; then usage "--ranks-per-node needs --hosts; on this machine use -n"; fi
if [ -n "$hosts" ]; then
  whole_number "$per_node" || usage "--ranks-per-node ${per_node:-(missing)}: choose a whole number above 0"
  read_hosts
fi
if [ -n "$ranks" ] || [ -z "$hosts" ]; then
  whole_number "$ranks" || usage "-n ${ranks:-(missing)}: choose a whole number above 0"
fi
if [ -n "$restarts" ]; then
  whole_number "$restarts" || usage "--restarts $restarts: choose a whole number above 0"
elif [ -n "$spare_hosts" ]; then
  usage "--spare-hosts $spare_hosts: is for --restarts"
fi
if [ -n "$spare_hosts" ]; then
  [ -n "$hosts" ] || usage "--spare-hosts $spare_hosts: needs --hosts, whose places they take"
  [ -r "$spare_hosts" ] || usage "--spare-hosts $spare_hosts: cannot read that file"
fi
if [ -n "$restarts" ]; then
  command -v python3 >/dev/null || usage "--restarts $restarts: needs python3, which is not in PATH"
  exec python3 -B "$home/restarts.py" --restarts "$restarts" ${ranks:+"-n=$ranks"} ${hosts:+"--hosts=$hosts"} \
    ${per_node:+"--ranks-per-node=$per_node"} ${spare_hosts:+"--spare-hosts=$spare_hosts"} \
    ${rank_logs:+"--rank-logs=$rank_logs"} "${kept[@]/#/--launch-word=}" -- "$@"
fi

find_mpi
count_cores
export_environment
if [ "$mpi" = mpich ]; then mpich_options "$@"; else open_mpi_options "$@"; fi

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
# say TEXT: as it came. What the watchdog says last is heard, too, in pieces as well.
said=""
say() {
  printf '%s' "$1"
  said+=$1
  if [[ "$said" == *"vqlm: error: the watchdog ended the job"* ]]; then
    said=""
    kill -USR2 $$ || true
  elif [ ${#said} -gt 100 ]; then
    said=${said: -100}
  fi
}
pass_on() {
  local part="" line="" block="" more status
  trap '' INT TERM HUP USR1
  while :; do
    status=0
    IFS= read -r -t 0.1 part || status=$?
    line+=$part
    # More than 128: no line end in time. What may be left out waits for the rest of its line.
    if [ $status -gt 128 ]; then
      if [ -z "$block" ] && [ -n "$line" ] && ! may_be_left_out "$line"; then say "$line"; line=""; fi
      continue
    fi
    more=$line
    [ $status -ne 0 ] || more+=$'\n'
    line=""
    if [[ "$more" =~ ^-{60,}$'\n'$ ]]; then
      block+=$more
      if [ "$block" = "$more" ]; then continue; fi
      is_noise "$block" || say "$block"
      block=""
    elif [ -n "$block" ]; then
      block+=$more
      if [ ${#block} -gt 10000 ]; then say "$block"; block=""; fi
    elif [[ "$more" != "$forwarding"* ]]; then
      say "$more"
    fi
    if [ $status -ne 0 ]; then say "$block"; return; fi
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

# After the watchdog's end mpirun asks the daemon of every host to end, and waits. TCP gives one that vanished up after
# minutes where something is on the way to it (probes are for silent connections alone).
ender=""
end_in_time() {
  signalled=yes
  [ -z "$ender" ] || return 0
  local seconds=${VQLM_MPIRUN_END_SECONDS:-30} never
  {
    exec {never}<> <(:)
    read -r -t "$seconds" -u "$never" || true
    trap '' TERM  # from here on it has ended it
    echo "mpirun.sh: mpirun goes on $seconds s after the watchdog ended the job: ending it" >&2
    pkill -KILL -P "$job" 2>/dev/null || true  # its ssh to that host, which has a group of its own
    kill -KILL -- "-$job" 2>/dev/null || true
  } &
  ender=$!
}

exec {errors}> >(pass_on >&2)
filter=$!
# With job control (-m) mpirun has a process group of its own, which the terminal's Ctrl-C does not reach.
set -m
"$mpirun" "${options[@]}" "${command[@]}" </dev/null 2>&"$errors" {errors}>&- &
job=$!
set +m
exec {errors}>&-
trap 'own_end=143; forward USR1' TERM HUP USR1
trap interrupt INT
trap end_in_time USR2

# A signal ends `wait` early; wait again until it returns mpirun's own exit status.
status=0
while :; do
  signalled=no
  status=0
  wait "$job" 2>/dev/null || status=$?  # bash has words for the one that we kill
  if [ "$signalled" = no ]; then break; fi
done
trap '' USR2  # there is nothing left to end
if [ -n "$ender" ]; then kill "$ender" 2>/dev/null || true; fi
if [ -n "$ender" ] && wait "$ender"; then
  status=69  # it was ended: a rank was lost (docs/checkpoints.md, exit codes); nobody waits for what else still holds the pipe
else
  wait "$filter" || true  # its last words
fi
# SIGUSR1 ended a command that does not ask for it (Open MPI: 138, MPICH: 10); the second Ctrl-C ends any, however
# mpirun puts that.
ended_by_usr1=138
if [ "$mpi" = mpich ]; then ended_by_usr1=10; fi
if [ "$own_end" -ne 0 ] && { [ "$status" -eq "$ended_by_usr1" ] || [ "$interrupts" -gt 1 ]; }; then status=$own_end; fi
# MPICH's mpirun loses the ranks' exit code now and then once it has handed on a signal (4.0.2: 2 times in 12). To resume a
# training that had all its steps does nothing; to take one for finished that was stopped would end it.
if [ "$mpi" = mpich ] && [ "$own_end" -ne 0 ] && [ "$status" -eq 0 ]; then
  case " $* " in *" train "*) status=75 ;; *) status=$own_end ;; esac
fi
# There are 64 signals; 205 and 255 are mpirun's own, of a host that was lost.
if [ "$status" -gt 128 ] && [ "$status" -le 192 ] && [ "$status" -ne "$own_end" ]; then
  why=""
  if [ "$status" -eq 137 ]; then why="; often the kernel, for want of memory"; fi
  echo "mpirun.sh: a rank was ended by signal $((status - 128)) ($(kill -l "$status" || true))$why" >&2
fi
exit "$status"
