#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# What is committed, in Debian 13 (GStreamer 1.26, OpenSSL 3.5), which debootstrap puts into target/debian13 and which is kept there:
# ./sfu test, or the command that is given. Rust, crates and nextest are this machine's.
#
# usage: debian13.sh [COMMAND...]
set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/packages.sh
source "$ROOT/scripts/packages.sh"
[ "$(id -u)" -eq 0 ] || die "debian13: debootstrap and mounts need root"
install_packages debian13

system=$ROOT/target/debian13
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
if [ ! -d "$system" ]; then
  rm -rf "$system.new"
  mkdir -p "$ROOT/target"
  debootstrap --variant=minbase --include=ca-certificates,git,procps trixie "$system.new" "$mirror"
  mv "$system.new" "$system"
fi
cp -L /etc/resolv.conf "$system/etc/resolv.conf"
mkdir -p "$system"/{opt/rust,opt/cargo,src}
if [ ! -d "$system/src/.git" ]; then
  git clone -q --no-hardlinks "$ROOT" "$system/src"
fi
git -C "$system/src" fetch -q "$ROOT" HEAD
git -C "$system/src" checkout -q --detach FETCH_HEAD

[ $# -gt 0 ] || set -- ./sfu test
export system
DEBIAN13_NEXTEST=$(command -v cargo-nextest || true)
[ -z "$DEBIAN13_NEXTEST" ] || touch "$system/usr/local/bin/cargo-nextest"
export DEBIAN13_NEXTEST
export DEBIAN13_RUST=${RUST_SYSROOT:-$(rustc --print sysroot)} DEBIAN13_CARGO=${CARGO_HOME:-$HOME/.cargo}
# Mounts and processes of its own, which end with it.
# shellcheck disable=SC2016
exec unshare --mount --propagation private --pid --fork --kill-child -- bash -euc '
mount --bind "$system" "$system"
mount -t proc proc "$system/proc"
mount --rbind /sys "$system/sys"
mount --rbind /dev "$system/dev"
mount -t tmpfs run "$system/run"
# Whom this machine trusts: registries may be behind a proxy with an authority of its own. Copied, so that what is installed or
# tried there does not change it.
mount -t tmpfs certs "$system/etc/ssl/certs"
cp -a /etc/ssl/certs/. "$system/etc/ssl/certs/"
cp -a /usr/local/share/ca-certificates/. "$system/usr/local/share/ca-certificates/"
mount --bind "$DEBIAN13_RUST" "$system/opt/rust"
mount --bind "$DEBIAN13_CARGO" "$system/opt/cargo"
[ -z "$DEBIAN13_NEXTEST" ] || mount --bind "$DEBIAN13_NEXTEST" "$system/usr/local/bin/cargo-nextest"
exec chroot "$system" env HOME=/root CARGO_HOME=/opt/cargo CI=true \
  PATH=/opt/rust/bin:/opt/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  bash -c "cd /src && exec \"\$@\"" debian13 "$@"
' debian13 "$@"
