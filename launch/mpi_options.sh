# The part of mpirun.sh (which sources this) that knows what the MPIs call things: Open MPI 4 (ORTE), Open MPI 5 (PRRTE)
# and MPICH (Hydra). Sets `mpi`, `mpirun`, and the arrays `options`, words for mpirun, and `command`, what it starts.

# The host list's names and slots; Open MPI's form, "name slots=8  # comment".
read_hosts() {
  [ -r "$hosts" ] || usage "cannot read the host list $hosts"
  local line words word slots
  host_names=() host_slots=()
  while read -r line || [ -n "$line" ]; do
    read -ra words <<<"${line%%#*}"
    [ ${#words[@]} -gt 0 ] || continue
    slots=""
    for word in "${words[@]:1}"; do
      if [[ "$word" == slots=* ]]; then
        slots=${word#slots=}
        whole_number "$slots" || usage "$hosts: ${words[0]} $word: write slots=N with a whole number above 0"
      fi
    done
    host_names+=("${words[0]}") host_slots+=("$slots")
  done <"$hosts"
  nodes=${#host_names[@]}
  [ "$nodes" -gt 0 ] || usage "the host list $hosts names no machine; write one name a line"
  local room=$((nodes * per_node)) host left
  if [ -n "$ranks" ] && whole_number "$ranks" && [ "$ranks" -gt "$room" ]; then
    usage "-n $ranks: $nodes hosts with --ranks-per-node $per_node have room for $room; name more hosts or fewer ranks"
  fi
  left=${ranks:-$room}
  for ((host = 0; host < nodes && left > 0; ++host)); do
    local here=$((left < per_node ? left : per_node))
    if [ "$oversubscribe" = no ] && [ -n "${host_slots[host]}" ] && [ "$here" -gt "${host_slots[host]}" ]; then
      usage "--ranks-per-node $per_node: $hosts gives ${host_names[host]} slots=${host_slots[host]};" \
        "choose fewer ranks, or say --oversubscribe"
    fi
    left=$((left - here))
  done
}

find_mpi() {
  mpirun=${VQLM_MPIRUN:-mpirun}
  command -v "$mpirun" >/dev/null ||
    usage "$mpirun: is not in PATH; install Open MPI or MPICH, or name their mpirun with VQLM_MPIRUN"
  local version
  version=$(OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "$mpirun" --version 2>/dev/null </dev/null || true)
  case "$version" in
    *HYDRA*) mpi=mpich ;;
    *"(Open MPI) "[5-9]*) mpi=openmpi5 ;;
    *) mpi=openmpi4 ;;
  esac
}

# The cores of a host, and the threads that a rank gets of them. nproc obeys OMP_NUM_THREADS, which says what a rank
# shall use and not what the machine has.
count_cores() {
  cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
  local on_host=${per_node:-$ranks} where="this machine"
  if [ -n "$hosts" ] && [ "$per_node" -gt "$cores" ]; then
    # The machine that starts the ranks may be a smaller one that has none of them.
    local first
    first=$(ssh -o BatchMode=yes -o ConnectTimeout=10 "${host_names[0]}" env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc \
      2>/dev/null </dev/null || true)
    if whole_number "$first"; then cores=$first where=${host_names[0]}; fi
    if [ "$oversubscribe" = no ] && [ "$per_node" -gt "$cores" ]; then
      usage "--ranks-per-node $per_node: $where has $cores cores; choose at most $cores, or let ranks share them with" \
        "--oversubscribe"
    fi
  fi
  threads=$((cores / on_host > 0 ? cores / on_host : 1))
}

# Sets NAME to the value for all that it starts, where the caller has not.
export_default() { export "$1=${!1:-$2}"; }

# What the ranks inherit, on every host. MPICH hands on the whole environment, Open MPI what -x names.
export_environment() {
  # Threads that wait must not spin where ranks share cores.
  export_default OMP_NUM_THREADS "$threads"
  export_default OMP_WAIT_POLICY passive
  # mpirun reads the ranks' output through a pipe, so they cannot see that it ends at a terminal.
  if [ -t 2 ]; then export VQLM_TERMINAL=1; fi
  if [ -n "$interface" ]; then
    [[ "$interface" =~ ^[A-Za-z0-9_.:/-]+(,[A-Za-z0-9_.:/-]+)*$ ]] ||
      usage "--interface $interface: choose an interface (eth0), a subnet (10.1.0.0/16), or several with commas between them"
    export VQLM_INTERFACE=$interface  # which the program and NCCL use
  fi
  local name
  travelling=()
  for name in "${variables[@]}"; do
    [[ "${name%%=*}" =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] || usage "--env $name: ${name%%=*} is no name of a variable"
    if [[ "$name" == *=* ]]; then
      export "${name?}"
    elif [ -z "$(compgen -e -X "!$name")" ]; then
      usage "--env $name: is not set here; export it, or give it a value: --env $name=VALUE"
    fi
    travelling+=("${name%%=*}")
  done
  while read -r name; do
    case "$name" in
      LD_LIBRARY_PATH | HDF5_USE_FILE_LOCKING | OPAL_PREFIX | CUDA_* | FI_* | NCCL_* | OMP_* | UCX_* | VQLM_*)
        travelling+=("$name")
        ;;
    esac
  done < <(compgen -e)
  mapfile -t travelling < <(printf '%s\n' "${travelling[@]}" | sort -u)
}

# Whether ranks may be on several hosts.
has_several_hosts() { [ "${nodes:-${SLURM_JOB_NUM_NODES:-1}}" -gt 1 ]; }

# The parameters of Open MPI and its daemons, and mpirun's words.
open_mpi_options() {
  command=("$@")
  if [ -n "${OMPI_MCA_mca_base_env_list:-}" ]; then
    usage "OMPI_MCA_mca_base_env_list is set, which Open MPI refuses beside -x: unset it and name its variables with --env"
  fi
  if [ "$(id -u)" -eq 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
  # A host that vanishes (no power, no link) says nothing: the daemons' connections probe it, and give it up 10 + 3 x 5 s
  # after its last word. Open MPI's own numbers make 8 minutes of it.
  local daemon=OMPI_MCA include=OMPI_MCA_oob_tcp_if_include ssh=OMPI_MCA_plm_rsh
  if [ "$mpi" = openmpi5 ]; then daemon=PRTE_MCA include=PRTE_MCA_prte_if_include ssh=PRTE_MCA_plm_ssh; fi
  export_default ${daemon}_oob_tcp_keepalive_time 10
  export_default ${daemon}_oob_tcp_keepalive_intvl 5
  export_default ${daemon}_oob_tcp_keepalive_probes 3
  # One that does not answer at the start is given up after 10 s, too, not after ssh's 2 minutes.
  local agent=${ssh}_agent
  if [ -z "${!agent:-}" ]; then export_default ${ssh}_args "-o ConnectTimeout=10"; fi
  # Seen at 1 Gbit/s: two ranks that send to each other at once share 65 MB/s of one connection, 115 MB/s of two.
  if has_several_hosts; then export_default OMPI_MCA_btl_tcp_links 2; fi
  if [ -n "$interface" ]; then export "OMPI_MCA_btl_tcp_if_include=$interface" "$include=$interface"; fi

  local places="" name
  if [ -n "$hosts" ]; then
    options=(-n "${ranks:-$((nodes * per_node))}" --hostfile "$hosts")
    places=ppr:$per_node:node
  else
    options=(-n "$ranks")
  fi
  if [ -n "$hosts" ] && [ "$oversubscribe" = no ]; then
    options+=(--map-by "$places:PE=$threads" --bind-to core)
  else
    # Unbound: one machine may run other things too, and two bound jobs would sit on the same first cores.
    options+=(--bind-to none)
    if [ "$mpi" = openmpi5 ]; then
      options+=(--map-by "$places:OVERSUBSCRIBE")
    else
      options+=(${places:+--map-by "$places"} --oversubscribe)
    fi
    # Ranks that share cores must give them up while they wait.
    if [ "${per_node:-$ranks}" -ge "$cores" ]; then options+=(--mca mpi_yield_when_idle 1); fi
  fi
  if [ -n "$rank_logs" ]; then
    if [ "$mpi" = openmpi5 ]; then log_ranks PMIX_RANK "$@"; else options+=(--output-filename "$rank_logs"); fi
  fi
  for name in "${travelling[@]}"; do options+=(-x "$name"); done
  options+=("${extra[@]}")
}

# Sets `command` to one that starts "$@" with a copy of its words in a folder of the rank, whose number VARIABLE holds: for
# launchers whose own option leaves the terminal silent.
log_ranks() {
  local variable=$1
  shift
  # shellcheck disable=SC2016  # for the rank's own shell
  command=(bash -c 'folder=$0/rank.${!1}; shift; mkdir -p "$folder" || exit 2
    copy() { trap "" INT TERM HUP USR1; exec tee "$folder/$1"; }
    exec > >(copy stdout) 2> >(copy stderr >&2); exec "$@"' "$rank_logs" "$variable" "$@")
}

# Hydra takes hosts as "name:ranks".
mpich_options() {
  options=(-n "${ranks:-$((nodes * per_node))}")
  export_default HYDRA_LAUNCHER_EXTRA_ARGS "-o ConnectTimeout=10"
  if [ -n "$interface" ]; then
    [[ "$interface" != *[/,]* ]] || usage "--interface $interface: MPICH's mpirun takes the name of one interface, such as eth0"
    options+=(-iface "$interface")
  fi
  if [ -n "$hosts" ]; then
    host_file=$(mktemp)
    trap 'rm -f "$host_file"' EXIT
    printf "%s:$per_node\n" "${host_names[@]}" >"$host_file"
    options+=(-f "$host_file" -ppn "$per_node")
    if [ "$oversubscribe" = no ]; then options+=(-bind-to "core:$threads"); fi
  fi
  options+=("${extra[@]}")
  command=("$@")
  if [ -n "$rank_logs" ]; then log_ranks PMI_RANK "$@"; fi
}
