#!/usr/bin/env bash
# Installs NVIDIA's cuobjdump and nvdisasm from PyPI, for tests/cuda/machine_code_test.py where the CUDA toolkit is without
# them. Nothing to do costs a second.
#   tests/cuda/get_disassembler.sh [FOLDER]      FOLDER: default build/disassembler, where ctest looks for it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. launch/packages.sh

folder=${1:-build/disassembler}
packages=(nvidia-cuda-cuobjdump==13.5.37 nvidia-cuda-nvdisasm==13.5.37)
if [ "$(cat "$folder/installed" 2>/dev/null)" = "${packages[*]}" ]; then
  echo "disassembler: $folder is complete"
  exit 0
fi
install_missing python3-venv python3-pip
rm -rf "$folder"
mkdir -p "$folder"
PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder" "${packages[@]}"
chmod +x "$folder"/nvidia/*/bin/*
"$folder"/nvidia/*/bin/cuobjdump --version >/dev/null
echo "${packages[*]}" >"$folder/installed"
echo "disassembler: $folder is complete, made in $SECONDS s"
