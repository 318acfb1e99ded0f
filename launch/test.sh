#!/usr/bin/env bash
# Installs what is missing, builds, and runs all tests, the multi-rank ones included. Arguments go to ctest:
#   launch/test.sh                everything
#   launch/test.sh -R parity      what matches
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. launch/packages.sh
install_missing clang libclang-rt-dev  # libFuzzer, for tests/fuzz
# PyTorch and transformers, with which tests/interop compares; without them (no network) its tests are skipped.
tests/interop/setup.sh build/interop || echo "test: no Python environment for tests/interop; ctest will skip these" >&2
launch/build.sh
ctest --test-dir build -j 2 --output-on-failure --no-tests=error "$@"
echo "test: all passed in $SECONDS s, build included"
