#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Called by meson: builds, and copies the plugins to where meson wants them. Usage: meson-build.sh PLUGIN.so…
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
"$root/sfu" build
for plugin; do cp -- "$root/target/release/${plugin##*/}" "$plugin"; done
