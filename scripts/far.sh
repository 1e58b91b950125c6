#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# A viewer far away: Chromium watches for so many seconds through the load tool's proxy (40 ms each way, 1 % lost in bursts
# of 4), what another page of it publishes with the time in its pictures. Prints one line of JSON.
#
# usage: far.sh SECONDS
set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
if ! command -v node >/dev/null || ! [ -x "${CHROMIUM:-/usr/bin/chromium}" ]; then
  echo '{"errors": ["Chromium and Node.js are needed: ./sfu packages test"]}'
  exit 1
fi
[ -d "$ROOT/tests/browser/node_modules" ] || (cd "$ROOT/tests/browser" && npm ci --silent >&2)
work=$(mktemp -d)
server=''
cleanup() {
  [ -z "$server" ] || kill -INT "$server" 2>/dev/null || true
  [ -z "$server" ] || wait "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT

# A TCP and a UDP port that are free now.
read -r port udp < <(python3 -c 'import socket
tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
tcp.bind(("127.0.0.1", 0)); udp.bind(("127.0.0.1", 0))
print(tcp.getsockname()[1], udp.getsockname()[1])')
export GST_PLUGIN_PATH=$ROOT/target/release GST_REGISTRY=$work/registry.bin
gst-launch-1.0 sfusignaller listen="127.0.0.1:$port" udp-port="$udp" shards=1 >"$work/server.log" 2>&1 &
server=$!
for _ in $(seq 100); do
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
  sleep 0.1
done
node "$ROOT/tests/browser/far.mjs" --url "http://127.0.0.1:$port" --udp "$udp" --load "$ROOT/target/release/sfu-load" \
  --seconds "$1"
