# SPDX-License-Identifier: MPL-2.0
# shellcheck shell=bash
# Compares this server with others, side by side on one machine: ./sfu bench. Sourced by ./sfu.
#
# Server and load are each in a network namespace, joined by a veth pair, and each on a core of its own. Every step
# starts the server anew. bench/rig.sh gives the server's end a queue. Results go to docs/benchmark.md and
# docs/benchmark.svg.

BENCH_STEPS=(10 50 100 250 500 1000)
BENCH_QUICK=(10 50)
BENCH_DURATION=10s
BENCH_OWN=(floor gst-sfu gst-sfu-layers gst-sfu-2)
BENCH_OTHERS=(janus webrtcbin whepserversink)
# While so many watch, so many more come in a second, so many in all.
BENCH_WATCHERS=300
BENCH_JOINS=600/s
BENCH_JOIN_COUNT=3000
# Many streams of 1.5 Mbit/s, as rooms are: how many, and the viewers of each. The first is what the others are measured by.
BENCH_STREAMS=("1 100" "10 10" "60 3")
# Rooms: publishers, listeners, and which pictures they ask for.
BENCH_ROOMS=("10 10 small" "50 0 small" "10 50 stage")
# Who publishes in a room, and viewers of the first of them by WHEP.
BENCH_STAGES=("10 300" "10 1000")
BENCH_ROOM_KEY=bench:a-secret-of-the-benchmark
# Through a queue: its kind and the viewers.
BENCH_QUEUES=("large 60" "small 60" "large 300")
BENCH_FAR=60
# The addresses of the server's and the load's end, of the range for benchmarks (RFC 2544).
BENCH_SERVER=198.18.0.1
BENCH_CLIENT=198.18.0.2
bench_pids=()

run_bench() {
  local steps=("${BENCH_STEPS[@]}") argument
  local systems=("${BENCH_OWN[@]}" "${BENCH_OTHERS[@]}") far=$BENCH_FAR
  bench_watchers=$BENCH_WATCHERS bench_join_count=$BENCH_JOIN_COUNT
  for argument in "$@"; do
    case $argument in
      --quick)
        steps=("${BENCH_QUICK[@]}")
        bench_watchers=20 bench_join_count=100
        ;;
      --own) systems=("${BENCH_OWN[@]}") ;;
      --no-browser) far='' ;;
      *) die "bench: there is no option $argument; there are --quick, --own and --no-browser" ;;
    esac
  done
  [ "$(id -u)" -eq 0 ] || die "bench: network namespaces need root"
  [ "$(nproc)" -ge 2 ] || die "bench: two cores are needed, one for the server and one for the load"
  install_packages bench
  build
  bench_work=$(mktemp -d)
  bench_results=$bench_work/results.jsonl
  trap bench_cleanup EXIT
  bench_network
  bench_versions >"$bench_work/versions"
  local step system
  declare -A over=()
  for step in "${steps[@]}"; do
    for system in "${systems[@]}"; do
      [ -z "${over[$system]:-}" ] || continue
      bench_step "$system" "$step" || over[$system]=1
    done
  done
  bench_idle gst-sfu
  local streams
  for streams in "${BENCH_STREAMS[@]}"; do
    # shellcheck disable=SC2086
    bench_streams gst-sfu $streams || true
  done
  local room
  for room in "${BENCH_ROOMS[@]}"; do
    # shellcheck disable=SC2086
    bench_room $room || true
  done
  for room in "${BENCH_STAGES[@]}"; do
    # shellcheck disable=SC2086
    bench_stage $room || true
  done
  bench_joins gst-sfu
  local queue
  for queue in "${BENCH_QUEUES[@]}"; do
    # shellcheck disable=SC2086
    bench_queue $queue
  done
  [ -z "$far" ] || bench_far "$far"
  python3 "$ROOT/bench/render.py" "$bench_results" "$bench_work/versions" "$ROOT/docs"
  echo "Results: docs/benchmark.md, docs/benchmark.svg"
}

bench_network() {
  bench_ns=sfubench$$
  ip netns add "${bench_ns}s"
  ip netns add "${bench_ns}c"
  ip link add bench0 netns "${bench_ns}s" type veth peer name bench1 netns "${bench_ns}c"
  ip -n "${bench_ns}s" address add "$BENCH_SERVER/24" dev bench0
  ip -n "${bench_ns}c" address add "$BENCH_CLIENT/24" dev bench1
  ip -n "${bench_ns}s" link set bench0 up
  ip -n "${bench_ns}c" link set bench1 up
  ip -n "${bench_ns}s" link set lo up
  ip -n "${bench_ns}c" link set lo up
}

# What the device says of what it sent and dropped.
bench_device() {
  tc -n "${bench_ns}s" -s qdisc show dev bench0
}

bench_cleanup() {
  bench_stop
  ip netns delete "${bench_ns}s" 2>/dev/null || true
  ip netns delete "${bench_ns}c" 2>/dev/null || true
  rm -rf "$bench_work"
}

bench_stop() {
  local pid
  for pid in "${bench_pids[@]}"; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  bench_pids=()
}

# On the server's or the load's core, ahead of whatever else the machine does.
bench_on() {
  local side=$1 core=$2
  shift 2
  exec ip netns exec "$bench_ns$side" chrt -r 1 taskset -c "$core" "$@"
}

bench_versions() {
  echo "gst-sfu: commit $(git -C "$ROOT" rev-parse --short HEAD 2>/dev/null || echo unknown)"
  echo "Janus: Debian package $(dpkg-query -W -f '${Version}' janus)"
  echo "webrtcbin: $(gst-launch-1.0 --version | sed -n 's/^GStreamer/GStreamer/p')"
  echo "whepserversink: gst-plugin-webrtc $(sed -n '/^name = "gst-plugin-webrtc"/{n;s/version = "\(.*\)"/\1/p}' "$ROOT/Cargo.lock")"
  echo "Machine: $(nproc) cores of $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n1), Linux $(uname -r | cut -d- -f1)"
}

# Plain RTP for servers that take that.
bench_feed() {
  bench_on c "$(($(nproc) - 1))" "$ROOT/target/release/sfu-load" rtp --to "$BENCH_SERVER:5004" --payload-type 102 \
    --keyframe-interval 2s >/dev/null 2>&1 &
  bench_pids+=($!)
}

# The servers. Each sets bench_server, its process, and bench_load, how viewers are played to it.
start_gst-sfu() {
  export GST_REGISTRY=$ROOT/target/registry.bin GST_PLUGIN_PATH=$ROOT/target/release
  # Who publishes and asks for figures is in another namespace, which is another machine.
  export GST_SFU_ACCESS=$ROOT/target/bench-access
  echo "anyone play publish metrics" >"$GST_SFU_ACCESS"
  bench_on s "${1:-0}" gst-launch-1.0 sfusignaller listen="$BENCH_SERVER:8080" udp-port=8189 shards="${2:-1}" \
    api-keys="$BENCH_ROOM_KEY" >"$bench_work/server.log" 2>&1 &
  bench_server=$!
  bench_load=(--whip "http://$BENCH_SERVER:8080/whip/bench" --keyframe-interval 2s
    --whep "http://$BENCH_SERVER:8080/whep/bench")
}

# The same with simulcast, of which each viewer gets the highest layer that its network carries.
start_gst-sfu-layers() {
  start_gst-sfu
  bench_load+=(--layers 3)
}

# The same on two cores. Where there are no more than two, the load shares the second one.
start_gst-sfu-2() {
  start_gst-sfu 0-1 2
}

start_janus() {
  local libraries
  libraries=$(dirname "$(dpkg-query -L janus | grep -m1 "/janus/plugins\$")")
  mkdir -p "$bench_work/janus"
  cat >"$bench_work/janus/janus.jcfg" <<END
general: {
  configs_folder = "$bench_work/janus", plugins_folder = "$libraries/plugins"
  transports_folder = "$libraries/transports", events_folder = "$libraries/events"
  loggers_folder = "$libraries/loggers", debug_level = 2
}
media: { ipv6 = false }
nat: { ice_enforce_list = "$BENCH_SERVER" }
plugins: { disable = "$(bench_others "$libraries/plugins" libjanus_streaming.so)" }
transports: { disable = "$(bench_others "$libraries/transports" libjanus_http.so)" }
loggers: { disable = "libjanus_jsonlog.so" }
END
  cat >"$bench_work/janus/janus.transport.http.jcfg" <<END
general: { json = "plain", base_path = "/janus", http = true, port = 8088, https = false }
admin: { admin_http = false }
END
  cat >"$bench_work/janus/janus.plugin.streaming.jcfg" <<END
bench: {
  type = "rtp", id = 1, description = "bench", audio = false, video = true, videoport = 5004, videopt = 102
  videocodec = "h264", videofmtp = "profile-level-id=42e01f;packetization-mode=1", videobufferkf = true
}
END
  bench_on s 0 janus -F "$bench_work/janus" >"$bench_work/server.log" 2>&1 &
  bench_server=$!
  bench_load=(--janus "http://$BENCH_SERVER:8088/janus")
  bench_feed
}

# The names of the libraries in a folder but one, joined by commas.
bench_others() {
  find "$1" -name '*.so' ! -name "$2" -printf '%f\n' | paste -sd,
}

start_webrtcbin() {
  bench_on s 0 "$ROOT/target/release/sfu-bench-webrtcbin" "$BENCH_SERVER" 8080 5004 >"$bench_work/server.log" 2>&1 &
  bench_server=$!
  bench_load=(--whep "http://$BENCH_SERVER:8080/bench" --video-only)
  bench_feed
}

start_whepserversink() {
  export GST_REGISTRY=$ROOT/target/registry.bin GST_PLUGIN_PATH=$ROOT/target/release
  # Who publishes and asks for figures is in another namespace, which is another machine.
  export GST_SFU_ACCESS=$ROOT/target/bench-access
  echo "anyone play publish metrics" >"$GST_SFU_ACCESS"
  local caps='application/x-rtp,media=video,encoding-name=H264,payload=102,clock-rate=90000'
  bench_on s 0 gst-launch-1.0 udpsrc address="$BENCH_SERVER" port=5004 caps="$caps" ! rtph264depay ! \
    h264parse config-interval=-1 ! queue ! \
    whepserversink signaller::host-addr="http://$BENCH_SERVER:8080" stun-server="" congestion-control=disabled \
    >"$bench_work/server.log" 2>&1 &
  bench_server=$!
  bench_load=(--whep "http://$BENCH_SERVER:8080/whep/endpoint" --video-only)
  bench_feed
}

# Plays this many viewers to a server. Fails where that was too much for it.
bench_step() {
  local system=$1 viewers=$2
  echo "== $system, $viewers viewers"
  if [ "$system" = floor ]; then
    bench_floor "$viewers"
  else
    bench_play "$@"
  fi
}

# The same datagrams to as many sockets, by a process that does nothing else.
bench_floor() {
  (bench_on c "$(($(nproc) - 1))" timeout 150 "$ROOT/target/release/sfu-floor" receive --to "$BENCH_SERVER:8189" \
    --viewers "$1") >"$bench_work/received.json" 2>"$bench_work/load.log" &
  local viewers=$!
  (bench_on s 0 timeout 150 "$ROOT/target/release/sfu-floor" send --listen "$BENCH_SERVER:8189" --viewers "$1" \
    --duration "$BENCH_DURATION" --keyframe-interval 2s) >"$bench_work/sent.json" 2>>"$bench_work/load.log" || true
  wait "$viewers" || true
  python3 "$ROOT/bench/step.py" floor "$1" "$bench_work/sent.json" "$bench_work/received.json" >>"$bench_results" || return 1
  tail -n1 "$bench_results"
}

# Through a device of 1 Gbit/s with a queue, with a socket buffer as a stock Debian grants it.
bench_queue() {
  echo "== gst-sfu, $2 viewers through a $1 queue"
  "$ROOT/bench/rig.sh" --queue "$1" --viewers "$2" >"$bench_work/step.json" || true
  python3 "$ROOT/bench/step.py" gst-sfu-queue "$2" "$bench_work/step.json" >>"$bench_results" || true
  tail -n1 "$bench_results"
}

# A publisher whom nobody watches.
bench_idle() {
  echo "== $1, nobody watches"
  "start_$1"
  bench_pids+=("$bench_server")
  sleep 4
  (bench_on c "$(($(nproc) - 1))" "$ROOT/target/release/sfu-load" --whip "http://$BENCH_SERVER:8080/whip/bench" \
    --keyframe-interval 2s --duration "$BENCH_DURATION" --pid "$bench_server" --json) \
    >"$bench_work/step.json" 2>"$bench_work/load.log" || true
  bench_stop
  python3 "$ROOT/bench/step.py" gst-sfu-idle 0 "$bench_work/step.json" >>"$bench_results" || true
  tail -n1 "$bench_results"
}

# So many streams with so many viewers each.
bench_streams() {
  local system=$1 streams=$2 each=$3
  echo "== $system, $streams streams with $each viewers each"
  bench_load_of "$system" "$((streams * each))" --streams "$streams" --bitrate 1500k
  echo "{\"streams\": $streams}" >"$bench_work/streams.json"
  python3 "$ROOT/bench/step.py" "$system-streams" "$((streams * each))" "$bench_work/step.json" \
    "$bench_work/streams.json" >>"$bench_results" || return 1
  tail -n1 "$bench_results"
}

# Participants of a room, by LiveKit's protocol.
bench_in_room() {
  bench_on c "$(($(nproc) - 1))" timeout 150 "$ROOT/target/release/sfu-load" --room "http://$BENCH_SERVER:8080" \
    --api-key "$BENCH_ROOM_KEY" --layers 3 --audio --keyframe-interval 2s --ramp 10/s --pid "$bench_server" --json "$@"
}

bench_room() {
  local publishers=$1 listeners=$2 pictures=$3
  echo "== gst-sfu, a room of $publishers publishers and $listeners listeners"
  start_gst-sfu
  bench_pids+=("$bench_server")
  sleep 4
  (bench_in_room --publishers "$publishers" --viewers "$listeners" --pictures "$pictures" \
    --duration "$BENCH_DURATION") >"$bench_work/step.json" 2>"$bench_work/load.log" || true
  bench_stop
  echo "{\"listeners\": $listeners, \"pictures\": \"$pictures\"}" >"$bench_work/room.json"
  python3 "$ROOT/bench/step.py" gst-sfu-room "$((publishers + listeners))" "$bench_work/step.json" \
    "$bench_work/room.json" >>"$bench_results" || return 1
  tail -n1 "$bench_results"
}

# A room, and an audience that watches its first publisher.
bench_stage() {
  local publishers=$1 viewers=$2
  echo "== gst-sfu, a room of $publishers publishers, $viewers watch one of them"
  start_gst-sfu
  bench_pids+=("$bench_server")
  sleep 4
  (bench_in_room --publishers "$publishers" --viewers 0 --pictures small --room-name stage \
    --duration "$((viewers / 50 + 20))s") >"$bench_work/room.json" 2>"$bench_work/load.log" &
  local room=$!
  sleep 4
  (bench_on c "$(($(nproc) - 1))" timeout 150 "$ROOT/target/release/sfu-load" \
    --whep "http://$BENCH_SERVER:8080/whep/stage/publisher0" --viewers "$viewers" --ramp 50/s \
    --duration "$BENCH_DURATION" --pid "$bench_server" --json) >"$bench_work/step.json" 2>"$bench_work/load.log" || true
  wait "$room" || true
  bench_stop
  python3 "$ROOT/bench/step.py" gst-sfu-stage "$viewers" "$bench_work/room.json" "$bench_work/step.json" >>"$bench_results" || return 1
  tail -n1 "$bench_results"
}

# Chromium behind a long and lossy link.
bench_far() {
  echo "== gst-sfu, a viewer far away"
  "$ROOT/scripts/far.sh" "$1" >"$bench_work/step.json" || true
  python3 "$ROOT/bench/step.py" gst-sfu-far 1 "$bench_work/step.json" >>"$bench_results" || true
  tail -n1 "$bench_results"
}

# While some watch, others come and go.
bench_joins() {
  echo "== $1, $BENCH_JOINS while $bench_watchers watch"
  bench_play "$1" "$bench_watchers" --joins "$BENCH_JOINS" --join-count "$bench_join_count" || true
}

bench_play() {
  local system=$1 viewers=$2 status=0
  bench_load_of "$@"
  python3 "$ROOT/bench/step.py" "$system" "$viewers" "$bench_work/step.json" >>"$bench_results" || status=1
  tail -n1 "$bench_results"
  return $status
}

# What the load tool finds goes into step.json.
bench_load_of() {
  local system=$1 viewers=$2
  shift 2
  "start_$system"
  bench_pids+=("$bench_server")
  # The keyframe that a viewer begins with comes every two seconds.
  sleep 4
  # On the last core, where a server on two cores leaves it alone if there is a third.
  (bench_on c "$(($(nproc) - 1))" timeout 150 "$ROOT/target/release/sfu-load" "${bench_load[@]}" --viewers "$viewers" \
    --ramp 50/s --duration "$BENCH_DURATION" --pid "$bench_server" --json "$@") \
    >"$bench_work/step.json" 2>"$bench_work/load.log" || true
  tail -n1 "$bench_work/load.log"
  bench_device
  bench_stop
}
