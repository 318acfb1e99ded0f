# shellcheck shell=bash
# Sourced by build.sh and demo.sh: installs distribution packages that are missing.

# install_missing PACKAGE...: nothing to do costs one dpkg-query.
install_missing() {
  if ! command -v dpkg-query >/dev/null; then
    echo "packages: no dpkg here; provide what these Debian packages hold yourself: $*" >&2
    return 0
  fi
  local missing=() package
  for package in "$@"; do
    if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
      missing+=("$package")
    fi
  done
  [ ${#missing[@]} -eq 0 ] && return 0

  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "packages: missing, and neither root nor sudo here: ask for: apt-get install ${missing[*]}" >&2
      return 1
    fi
    as_root=(sudo)
  fi
  echo "packages: installing ${missing[*]}"
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300)
  # The lists may be missing (containers) or too old for the archive; an update that fails may still leave good ones.
  "${apt[@]}" update >/dev/null || echo "packages: apt-get update failed; trying with the lists that are here" >&2
  if ! "${apt[@]}" install --no-install-recommends "${missing[@]}" >/dev/null; then
    echo "packages: apt-get install ${missing[*]} failed; see its message above" >&2
    return 1
  fi
}
