#!/usr/bin/env bash
# Installs what is missing, builds, and runs all tests, the multi-rank ones included. Arguments go to ctest:
#   launch/test.sh                everything
#   launch/test.sh -R parity      what matches
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. launch/packages.sh
install_missing clang libclang-rt-dev  # libFuzzer, for tests/fuzz
# The hosts of tests/cluster. Where systemd runs, their packages would start daemons, and only root can make the hosts: the
# tests use there what is installed.
if [ ! -d /run/systemd/system ] && unshare --net --mount --pid --fork true 2>/dev/null; then
  install_missing iproute2 munge openssh-server slurm-wlm || echo "test: ctest will skip the tests of a cluster" >&2
fi
# PyTorch and transformers, with which tests/interop compares; without them (no network) its tests are skipped.
tests/interop/setup.sh build/interop || echo "test: no Python environment for tests/interop; ctest will skip these" >&2
# cuobjdump and nvdisasm, for the test of the kernels' machine code, where the toolkit came without them.
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
if [ -x "$nvcc" ] && [ ! -x "$(dirname "$nvcc")/cuobjdump" ]; then
  tests/cuda/get_disassembler.sh build/disassembler || echo "test: no cuobjdump; ctest will skip the test of machine code" >&2
fi
launch/build.sh
ctest --test-dir build -j 2 --output-on-failure --no-tests=error "$@"
echo "test: all passed in $SECONDS s, build included"
