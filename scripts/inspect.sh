#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Keeps docs/inspect/ELEMENT.txt, the interface of each element as gst-inspect-1.0 shows it, so that it can't change
# unseen. With --check it only compares.
set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
export GST_REGISTRY=${GST_REGISTRY:-$ROOT/target/registry.bin}
export GST_PLUGIN_PATH=$ROOT/target/release
export GST_INSPECT_NO_COLORS=1
mkdir -p "$ROOT/docs/inspect"

# What belongs to this build or this GStreamer is left out.
interface() {
  gst-inspect-1.0 --no-colors "$1" |
    sed -E '/^Plugin Details:/,/^$/d; /^ *(Filename|Version|Source release date) /d; s/[[:space:]]+$//'
}

version=$(gst-inspect-1.0 --version | sed -n 's/^GStreamer \([0-9]*\.[0-9]*\).*/\1/p')
if [ "${1:-}" = --check ] && [ "$version" != 1.22 ]; then
  echo "The texts in docs/inspect are those of GStreamer 1.22; this is $version: not compared."
  exit 0
fi
status=0
for element in sfusink sfusrc sfuroomsrc sfuroommixer sfurecorder sfuhlssink sfusignaller simulcastenc ndilivesrc rtmpserversrc sfurtspserver peerwatch supervisor srtserver; do
  file=$ROOT/docs/inspect/$element.txt
  if [ "${1:-}" != --check ]; then
    interface "$element" >"$file"
  elif ! diff -u "$file" <(interface "$element"); then
    echo "the interface of $element changed: if that is meant, run scripts/inspect.sh and commit the result" >&2
    status=1
  fi
done
exit $status
