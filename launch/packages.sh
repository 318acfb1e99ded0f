# shellcheck shell=bash
# Sourced by build.sh and demo.sh: installs distribution packages that are missing.

# is_installed PACKAGE: for any architecture.
is_installed() { dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed; }

# install_missing PACKAGE...: nothing to do costs a dpkg-query for each.
install_missing() {
  if ! command -v dpkg-query >/dev/null; then
    echo "packages: no dpkg here; provide what these Debian packages hold yourself: $*" >&2
    return 0
  fi
  local missing=() package
  for package in "$@"; do
    is_installed "$package" || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
}

# apt_install [OPTION...] PACKAGE...: as root, or through sudo.
apt_install() {
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "packages: missing, and neither root nor sudo here: ask for: apt-get install $*" >&2
      return 1
    fi
    as_root=(sudo)
  fi
  echo "packages: installing $*"
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300)
  # The lists may be missing (containers) or too old for the archive; an update that fails may still leave good ones.
  "${apt[@]}" update >/dev/null || echo "packages: apt-get update failed; trying with the lists that are here" >&2
  if ! "${apt[@]}" install --no-install-recommends "$@" >/dev/null; then
    echo "packages: apt-get install $* failed; see its message above" >&2
    return 1
  fi
}
