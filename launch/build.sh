#!/usr/bin/env bash
# Installs what is missing and builds build/vqlm (Debian 12 or newer, Ubuntu 24.04 or newer), with CUDA and NCCL where nvcc
# is in PATH or in /usr/local/cuda (VQLM_CUDA=OFF leaves them out, VQLM_CUDA=ON insists; VQLM_REQUIRE_CUDA_TESTS=ON
# insists on their tests, which need no GPU), for sm_80, sm_90a and later chips unless VQLM_CUDA_ARCHITECTURES names others
# (CMake's words: 90a-real). VQLM_UNITY=OFF compiles file by file: for work on one of them.
#   launch/build.sh               the program and the tests (a micro-benchmark: cmake --build build --target ops_bench)
#   launch/build.sh --no-tests    the program only
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. launch/packages.sh

tests=ON
case "${1:-}" in
  "") ;;
  --no-tests) tests=OFF ;;
  *) echo "usage: launch/build.sh [--no-tests]" >&2; exit 2 ;;
esac

packages=(g++ cmake ninja-build pkg-config libopenmpi-dev openmpi-bin libhdf5-dev libdnnl-dev libhwy-dev
          libspdlog-dev libcli11-dev libtomlplusplus-dev nlohmann-json3-dev libsentencepiece-dev
          libpcre2-dev libutf8proc-dev zlib1g-dev libarchive-dev libdeflate-dev libsimdjson-dev libzstd-dev libxxhash-dev libeigen3-dev libssl-dev
          gnuplot-nox)  # vqlm report --plot starts gnuplot
if [ "$tests" = ON ]; then packages+=(libgtest-dev libgmock-dev libbenchmark-dev python3 python3-scipy); fi
install_missing "${packages[@]}"

if ! cmake --version | awk 'NR == 1 { split($3, v, "."); exit !(v[1] > 3 || v[1] == 3 && v[2] >= 25) }'; then
  echo "build: needs CMake 3.25 or newer, found $(cmake --version | head -n 1); Debian 12 and Ubuntu 24.04 have it" >&2
  exit 1
fi

configure=(cmake --preset release "-DVQLM_TESTS=$tests" "-DVQLM_CUDA=${VQLM_CUDA:-AUTO}"
           "-DVQLM_REQUIRE_CUDA_TESTS=${VQLM_REQUIRE_CUDA_TESTS:-OFF}" "-DVQLM_UNITY=${VQLM_UNITY:-ON}"
           "-DCMAKE_CUDA_ARCHITECTURES=${VQLM_CUDA_ARCHITECTURES:-80;90a-real}")
if command -v ccache >/dev/null; then configure+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
mkdir -p build
"${configure[@]}" >build/configure.log 2>&1 || { cat build/configure.log >&2; exit 1; }
sed -n 's/^-- \(CUDA\b.*\|.* left out\b.*\)/build: \1/p' build/configure.log
cmake --build build -j "$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)"
echo "build: $(pwd)/build/vqlm"
