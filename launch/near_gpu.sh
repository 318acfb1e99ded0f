#!/usr/bin/env bash
# Starts a rank's command on the cores near the GPU that this rank takes (the GPU of its local rank, or the only one that it
# sees), as the kernel lists them for the GPU's PCI slot; without a GPU or such a list the command starts as it is.
#   srun --cpu-bind=none launch/near_gpu.sh build/vqlm train ...        (launch/train.sbatch does)
#   launch/mpirun.sh -n 8 launch/near_gpu.sh build/vqlm train ...
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

# CUDA numbers GPUs by speed unless told otherwise; nvidia-smi by PCI slot.
export CUDA_DEVICE_ORDER=PCI_BUS_ID
local_rank=${OMPI_COMM_WORLD_LOCAL_RANK:-${MPI_LOCALRANKID:-${SLURM_LOCALID:-0}}}  # Open MPI's, MPICH's, Slurm's

# pci_of_own_gpu: 00000000:1B:00.0, or nothing.
pci_of_own_gpu() {
  local visible gpus
  command -v nvidia-smi >/dev/null || return 0
  if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
    IFS=, read -ra visible <<<"$CUDA_VISIBLE_DEVICES"
  else
    mapfile -t visible < <(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null)
  fi
  gpus=${#visible[@]}
  if [ "$gpus" -eq 0 ]; then return 0; fi
  nvidia-smi --id="${visible[$((gpus == 1 ? 0 : local_rank % gpus))]}" --query-gpu=pci.bus_id --format=csv,noheader 2>/dev/null || true
}

pci=$(pci_of_own_gpu)
pci=${pci,,}
cores=""
# The kernel's PCI domains have four digits, nvidia-smi's eight.
if [ -n "$pci" ]; then cores=$(cat "/sys/bus/pci/devices/${pci: -12}/local_cpulist" 2>/dev/null || true); fi
# A list outside of what the job may use is refused as a whole; other cores are then better than none.
if [ -n "$cores" ] && taskset -c "$cores" true 2>/dev/null; then exec taskset -c "$cores" "$@"; fi
exec "$@"
