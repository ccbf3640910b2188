#!/usr/bin/env bash
# Installs the system packages that are missing, and only those: with nothing missing it needs neither apt
# nor a network nor root. "setup_packages.sh build" (default) for building and testing, "fmt" for ./dev fmt.
set -euo pipefail

missing=()
has() { command -v "$1" >/dev/null 2>&1; }
need() { missing+=("$1"); }

# The compiler ./dev will use: $CXX, else the newest g++ of 12 or later.
compiler() {
  local candidate
  for candidate in ${CXX:-} g++ g++-15 g++-14 g++-13 g++-12; do
    has "$candidate" || continue
    [ "$("$candidate" -dumpversion 2>/dev/null | cut -d. -f1)" -ge 12 ] 2>/dev/null || continue
    command -v "$candidate"
    return
  done
}

look_for_build_tools() {
  local cxx header
  cxx=$(compiler)
  if [ -z "$cxx" ]; then
    # Ubuntu 22.04's g++ is version 11; its g++-12 is a package of its own.
    if grep -qs 'VERSION_ID="22.04"' /etc/os-release; then need g++-12; else need g++; fi
  fi
  has cmake || need cmake
  has ninja || need ninja-build
  has ld.lld || need lld
  has python3 || need python3
  python3 -c 'import pip' 2>/dev/null || need python3-pip
  while read -r header package; do
    printf '#if !__has_include(<%s>)\n#error\n#endif\n' "$header" |
      "${cxx:-false}" -std=c++20 -E -x c++ - >/dev/null 2>&1 || need "$package"
  done <<'HEADERS'
nlohmann/json.hpp nlohmann-json3-dev
simdjson.h libsimdjson-dev
CLI/CLI.hpp libcli11-dev
gtest/gtest.h libgtest-dev
toml++/toml.h libtomlplusplus-dev
boost/beast/core.hpp libboost-dev
HEADERS
}

look_for_python_headers() {
  python3 -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null ||
    need python3-dev
}

install_missing() {
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "[setup] missing: ${missing[*]}" >&2
  local as_root=()
  if ! has apt-get; then
    echo "[setup] no apt-get here: install these (or what your system calls them) and run ./dev again" >&2
    exit 1
  fi
  if [ "$(id -u)" != 0 ]; then
    has sudo || { echo "[setup] apt-get needs root: run ./dev setup as root, or install sudo" >&2; exit 1; }
    as_root=(sudo --preserve-env=http_proxy,https_proxy,no_proxy)
  fi
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
    apt-get -y --no-install-recommends -o Acquire::Retries=5)
  # The list of packages may be empty or old; it is fetched only when the packages cannot be had without.
  "${apt[@]}" install "${missing[@]}" </dev/null >&2 2>/dev/null && return 0
  "${apt[@]}" update </dev/null >&2
  "${apt[@]}" install "${missing[@]}" </dev/null >&2
}

case "${1:-build}" in
  compiler) compiler; exit ;;
  build) look_for_build_tools ;;
  test) look_for_build_tools && look_for_python_headers ;;
  fmt) has clang-format || need clang-format ;;
  *) echo "usage: setup_packages.sh [build|test|fmt|compiler]" >&2; exit 2 ;;
esac
install_missing
echo "[setup] packages: complete" >&2
