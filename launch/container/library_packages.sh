#!/usr/bin/env bash
# Prints the packages of this system that hold the shared libraries of programs, one a line: what an image on the same
# system must have to run them. The image's own build asks, since the names differ between Debian and Ubuntu.
#   launch/container/library_packages.sh build/vqlm
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

said=$(ldd "$@")
if missing=$(grep -F 'not found' <<<"$said"); then
  echo "library_packages.sh: missing here: $(awk '{ print $1 }' <<<"$missing" | sort -u | xargs); install what holds them" >&2
  exit 1
fi
mapfile -t libraries < <(awk '$2 == "=>" { print $3 }' <<<"$said" | sort -u)

# The loader may say /lib for what dpkg knows in /usr/lib, or the other way round, and a link may belong to no package.
names_of() { printf '%s\n' "$1" "/usr$1" "${1#/usr}" "$(realpath "$1")"; }
declare -A owner
# libc6:amd64: /lib/x86_64-linux-gnu/libc.so.6
while IFS=' ' read -r package path; do owner[$path]=${package%%:*}; done < <(
  for library in "${libraries[@]}"; do names_of "$library"; done | xargs dpkg -S 2>/dev/null || true)

for library in "${libraries[@]}"; do
  package=""
  for name in $(names_of "$library"); do package=${package:-${owner[$name]:-}}; done
  if [ -z "$package" ]; then
    echo "library_packages.sh: no package holds $library; an image made of packages would lack it" >&2
    exit 1
  fi
  echo "$package"
done | sort -u
