# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# Sourced by ./demo, ./test and ./bench: sees to it that what they build with is there. Debian and Ubuntu: installs
# it as root, else says the one line to run. Elsewhere: says what is missing.

setup_missing=()
setup_need() { # COMMAND PACKAGE
    command -v "$1" > /dev/null || setup_missing+=("$2")
}

setup_need cc build-essential
setup_need meson meson
setup_need ninja ninja-build
setup_need pkg-config pkg-config
# Debian 12's cargo is too old; what its security updates build Firefox with is not, but has no clippy.
declare -A setup_rust=([cargo]=cargo [rustfmt]=rustfmt [cargo-clippy]=rust-clippy)
if grep -qs '^VERSION_CODENAME=bookworm' /etc/os-release; then setup_rust=([cargo]=cargo-web [rustfmt]=rustfmt-web); fi
setup_need cargo "${setup_rust[cargo]}"

if [ ${#setup_missing[@]} -gt 0 ]; then
    setup_line="install -y --no-install-recommends ${setup_missing[*]}"
    if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
        echo "installing: ${setup_missing[*]}" >&2
        setup_apt='apt-get -o DPkg::Lock::Timeout=120'    # others may be at it
        { $setup_apt update && DEBIAN_FRONTEND=noninteractive $setup_apt $setup_line; } > /dev/null || exit 1
    else
        echo "missing: ${setup_missing[*]}. To install them: sudo apt-get $setup_line" >&2
        exit 1
    fi
fi

# What only some tests need, and which those are skipped without: COMMAND:PACKAGE, or one name of both.
for setup_wanted in "${setup_wants[@]}"; do
    setup_package=${setup_wanted#*:}
    case $setup_wanted in
    rustfmt | cargo-clippy)    # Only beside the distribution's cargo: another, rustup's say, has its own.
        if [ "$(command -v cargo)" != /usr/bin/cargo ] || command -v rustup > /dev/null; then continue; fi
        setup_package=${setup_rust[$setup_wanted]:-}
        ;;
    esac
    [ -z "$setup_package" ] || scripts/need "${setup_wanted%:*}" "$setup_package" > /dev/null || true
done

read -r setup_major setup_minor < <(cargo --version | sed 's/^cargo \([0-9]*\)\.\([0-9]*\).*/\1 \2/')
if [ "$setup_major" -eq 1 ] && [ "$setup_minor" -lt 85 ]; then
    echo "cargo is 1.$setup_minor, but 1.85 or newer is needed (Debian 12's cargo-web, Debian 13, Ubuntu 25.10, or rustup)" >&2
    exit 1
fi
unset setup_missing setup_apt setup_line setup_wants setup_wanted setup_package setup_rust setup_major setup_minor
