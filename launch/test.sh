#!/usr/bin/env bash
# Installs what is missing, builds, and runs all tests, the multi-rank ones included. Arguments go to ctest:
#   launch/test.sh                everything
#   launch/test.sh -R parity      what matches
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
launch/build.sh
ctest --test-dir build -j 2 --output-on-failure --no-tests=error "$@"
echo "test: all passed in $SECONDS s, build included"
