#!/usr/bin/env bash
# Makes the Python environment in which tests/interop compares this program with transformers: Debian's PyTorch 1.13 and
# NumPy, and pinned packages for them. Nothing to do costs a second.
#   tests/interop/setup.sh [FOLDER]      FOLDER: default build/interop, where ctest looks for it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. launch/packages.sh

folder=${1:-build/interop}
# transformers 4.45 is the last one that generates with PyTorch 1.13 on Python 3.11: later ones import torch.distributed.fsdp,
# which fails there ("mutable default").
packages=(transformers==4.45.2 tokenizers==0.20.3 safetensors==0.4.5 sentencepiece==0.2.0 protobuf==4.25.5 pyarrow==17.0.0
          gguf==0.19.0 h5py==3.12.1)

install_missing python3-torch python3-numpy python3-venv python3-pip
done_mark="$folder/installed"
if [ "$(cat "$done_mark" 2>/dev/null)" = "${packages[*]}" ]; then
  echo "interop: $folder is complete"
  exit 0
fi
# Debian's Python: the one that its torch is built for, whatever else is first in PATH.
/usr/bin/python3 -m venv --system-site-packages --clear "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
"$folder/bin/python" -c "import torch, transformers, sentencepiece, pyarrow, gguf, h5py"
echo "${packages[*]}" >"$done_mark"
echo "interop: $folder is complete, made in $SECONDS s"
