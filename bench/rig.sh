#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# A link with a queue: plays viewers to a server through a device of 1 Gbit/s, and says what became of the packets.
#
# Server and load are in network namespaces of their own, joined by a veth pair, and each on a core of its own. The
# server's end has a token bucket (tbf). Prints one JSON object: what sfu-load measured, and what the device says.
set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat <<'END'
usage: bench/rig.sh [OPTION…] [-- LOAD-OPTION…]

  --plugins DIR       the build whose sfusignaller serves [target/release]
  --load FILE         the load tool [target/release/sfu-load]
  --queue KIND        large: 4 MB, more than the socket's buffer, so that the kernel answers EAGAIN; small: 256 kB, less
                      than it, so that the queue drops; or none [large]
  --viewers N         [60]
  --bitrate RATE      of each of them [2500k]
  --layers N          [1]
  --duration TIME     once all have joined [15s]
  --ramp RATE         viewers that join in a second [50/s]
  --send-buffer N     octets, where the element has the property; 0 for its default [212992]
  --privileged        leave the server CAP_NET_ADMIN, by which it may take larger buffers than net.core.wmem_max
  --bad-address       one more viewer comes whose address can't be sent to
  --no-audio          publish pictures alone
  --set NAME=VALUE    another property of sfusignaller
  --server-log FILE   what the server says goes there
  --words             words instead of JSON

What follows -- is given to the load tool, such as --sample 100% or --joins 600/s. Needs root.
END
}

plugins=$ROOT/target/release load=$ROOT/target/release/sfu-load queue=large viewers=60 bitrate=2500k layers=1
duration=15s ramp=50/s send_buffer=212992 privileged='' audio=--audio words='' stranger='' server_log=/dev/null properties=()
while [ $# -gt 0 ]; do
  case $1 in
    --plugins) plugins=$(realpath "$2") && shift ;;
    --load) load=$(realpath "$2") && shift ;;
    --queue) queue=$2 && shift ;;
    --viewers) viewers=$2 && shift ;;
    --bitrate) bitrate=$2 && shift ;;
    --layers) layers=$2 && shift ;;
    --duration) duration=$2 && shift ;;
    --ramp) ramp=$2 && shift ;;
    --send-buffer) send_buffer=$2 && shift ;;
    --privileged) privileged=1 ;;
    --no-audio) audio='' ;;
    --bad-address) stranger=1 ;;
    --set) properties+=("$2") && shift ;;
    --server-log) server_log=$(realpath "$2") && shift ;;
    --words) words=1 ;;
    --help | -h) usage && exit ;;
    --) shift && break ;;
    *) echo "rig: there is no option $1" >&2 && usage >&2 && exit 2 ;;
  esac
  shift
done
case $queue in
  large) limit=4m ;;
  small) limit=256k ;;
  none) limit='' ;;
  *) echo "rig: --queue is large, small or none" >&2 && exit 2 ;;
esac
[ "$(id -u)" -eq 0 ] || { echo "rig: network namespaces need root" >&2 && exit 2; }

# Of the range for benchmarks (RFC 2544).
SERVER=198.18.0.1 CLIENT=198.18.0.2
ns=sfurig$$
server_pid='' stranger_pid='' work=$(mktemp -d)
# shellcheck disable=SC2317 # It is called by the trap.
cleanup() {
  [ -z "$stranger_pid" ] || kill "$stranger_pid" 2>/dev/null || true
  if [ -n "$server_pid" ]; then
    kill -INT "$server_pid" 2>/dev/null || true
    for _ in $(seq 30); do
      kill -0 "$server_pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$server_pid" 2>/dev/null || true
    wait "$server_pid" 2>/dev/null || true
  fi
  ip netns delete "${ns}s" 2>/dev/null || true
  ip netns delete "${ns}c" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT

ip netns add "${ns}s"
ip netns add "${ns}c"
ip link add rig0 netns "${ns}s" type veth peer name rig1 netns "${ns}c"
ip -n "${ns}s" address add "$SERVER/24" dev rig0
ip -n "${ns}c" address add "$CLIENT/24" dev rig1
for end in s:rig0 c:rig1 s:lo c:lo; do ip -n "$ns${end%:*}" link set "${end#*:}" up; done
[ -z "$limit" ] || tc -n "${ns}s" qdisc add dev rig0 root tbf rate 1gbit burst 128k limit "$limit"

# Ahead of whatever else the machine does.
on() {
  local side=$1 core=$2
  shift 2
  exec ip netns exec "$ns$side" chrt -r 1 taskset -c "$core" "$@"
}

export GST_PLUGIN_PATH=$plugins GST_REGISTRY=$work/registry.bin
# Who publishes and asks for figures is in another namespace, which is another machine.
echo "anyone play publish metrics" >"$work/access"
export GST_SFU_ACCESS=$work/access
if [ "$send_buffer" != 0 ] && gst-inspect-1.0 sfusignaller 2>/dev/null | grep -q '^ *send-buffer '; then
  properties+=("send-buffer=$send_buffer")
fi
drop=()
[ -n "$privileged" ] || drop=(setpriv --bounding-set -net_admin --inh-caps -net_admin)
on s 0 "${drop[@]}" gst-launch-1.0 sfusignaller listen="$SERVER:8080" udp-port=8189 shards=1 "${properties[@]}" \
  >"$server_log" 2>&1 &
server_pid=$!
for _ in $(seq 100); do
  (ip netns exec "${ns}c" bash -c "exec 3<>/dev/tcp/$SERVER/8080") 2>/dev/null && break
  sleep 0.1
done

if [ -n "$stranger" ]; then
  # When there is a stream to ask for.
  (sleep 3 && exec ip netns exec "${ns}c" python3 "$ROOT/bench/stranger.py" "http://$SERVER:8080/whep/rig" "$SERVER" 8189) >&2 &
  stranger_pid=$!
fi
status=0
(on c "$(($(nproc) - 1))" timeout 150 "$load" --whip "http://$SERVER:8080/whip/rig" --whep "http://$SERVER:8080/whep/rig" \
  --keyframe-interval 2s --bitrate "$bitrate" --layers "$layers" ${audio:+"$audio"} --viewers "$viewers" --ramp "$ramp" \
  --duration "$duration" --pid "$server_pid" --json "$@") >"$work/load.json" 2>"$work/load.log" || status=$?
tail -n1 "$work/load.log" >&2
tc -n "${ns}s" -s qdisc show dev rig0 >"$work/tc"
ip netns exec "${ns}c" bash -c "exec 3<>/dev/tcp/$SERVER/8080
  printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; timeout 2 cat <&3" >"$work/metrics" 2>/dev/null || true
python3 "$ROOT/bench/rig.py" "$work" "$queue" "$words"
exit "$status"
