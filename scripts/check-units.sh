#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Checks that the units in deploy/ are ones that systemd takes, and that they end what they run as they should.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for unit in "$root"/deploy/*.service; do
  # `./sfu run` drains by SIGTERM alone, which kills a `gst-launch-1.0` that it does not watch.
  case $unit in
    */sfu@.service) signal=SIGTERM ;;
    *) signal=SIGINT ;;
  esac
  for line in KillSignal=$signal KillMode=mixed TimeoutStopSec=5 Restart=always; do
    grep -qx "$line" "$unit" || {
      echo "$unit has no line $line" >&2
      exit 1
    }
  done
  # An instance, with the programs where they are here.
  name=$(basename "$unit")
  sed "s#/opt/gst-sfu#$root#" "$unit" >"$folder/${name/@./@sfu.}"
done
if ! command -v systemd-analyze >/dev/null; then
  echo "systemd-analyze is missing: the units were not verified" >&2
  exit 1
fi
said=$(systemd-analyze verify "$folder"/*.service 2>&1 | grep -F "$folder" || true)
if [ -n "$said" ]; then
  echo "$said" >&2
  exit 1
fi
echo "units checked: $(basename -a "$root"/deploy/*.service | paste -sd' ')"
