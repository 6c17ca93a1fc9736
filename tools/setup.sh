#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Checks that the Debian packages given, or those of `make unit`, `make lint` and `make fuzz`, are
# installed. As root it installs what is missing, otherwise it prints the command that does.
set -eu

packages=$*
if [ -z "$packages" ]; then
    packages="gcc g++ libc6-dev libssl-dev binutils make cmake ninja-build clang libclang-rt-dev \
python3-dev python3-venv"
fi

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# libFuzzer and the sanitizers of the clang that the package clang brings: a version is in the name.
clang_runtime() {
    version=$(apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p')
    echo "libclang-rt-${version:-VERSION}-dev"
}

missing_of() {
    for package in "$@"; do
        [ "$package" != libclang-rt-dev ] || package=$(clang_runtime)
        is_installed "$package" || echo "$package"
    done
}

# shellcheck disable=SC2086 # one word per package, here and below
missing=$(missing_of $packages)
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "missing packages; as root: apt-get install --no-install-recommends" $missing >&2
    exit 1
fi
apt-get update -q
missing=$(missing_of $packages) # apt may know more packages now
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
