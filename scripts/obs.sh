#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# OBS Studio, with no screen, publishes to pipelines/rtmp-in (ENCODE=auto) for Chromium, with OBS's default settings (whose
# pictures have B-frames) and with zerolatency. Prints one line of JSON for each.
#
# usage: obs.sh SECONDS
set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
[ -d "$ROOT/tests/browser/node_modules" ] || (cd "$ROOT/tests/browser" && npm ci --silent >&2)
seconds=$1
work=$(mktemp -d)
logs=$ROOT/target/obs
mkdir -p "$logs"
processes=()
end_all() {
  local n process
  # The last one first: OBS would crash without its screen.
  for ((n = ${#processes[@]} - 1; n >= 0; n--)); do
    process=${processes[n]}
    kill -INT "$process" 2>/dev/null || continue
    for _ in $(seq 50); do
      kill -0 "$process" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$process" 2>/dev/null || true
    wait "$process" 2>/dev/null || true
  done
  processes=()
}
cleanup() {
  end_all
  rm -rf "$work"
}
trap cleanup EXIT

# What OBS shows: it moves all the time.
ffmpeg -nostdin -v error -f lavfi -i testsrc2=size=640x360:rate=30:duration=20 -f lavfi -i sine=duration=20 \
  -c:v libx264 -preset ultrafast -c:a aac "$work/film.mp4"

# Settings as OBS keeps them. $1 is what x264 gets besides, $2 the port.
settings() {
  local config=$work/config/obs-studio
  rm -rf "$work/config"
  mkdir -p "$config/basic/profiles/sfu" "$config/basic/scenes"
  cat >"$config/global.ini" <<END
[General]
FirstRun=true
LastVersion=486539266
EnableAutoUpdates=false
[Basic]
Profile=sfu
ProfileDir=sfu
SceneCollection=sfu
SceneCollectionFile=sfu
END
  cat >"$config/basic/profiles/sfu/basic.ini" <<END
[General]
Name=sfu
[Video]
BaseCX=640
BaseCY=360
OutputCX=640
OutputCY=360
FPSCommon=30
[Output]
Mode=Simple
[SimpleOutput]
StreamEncoder=x264
VBitrate=1200
UseAdvanced=$([ -n "$1" ] && echo true || echo false)
x264Settings=$1
END
  cat >"$config/basic/profiles/sfu/service.json" <<END
{"type": "rtmp_custom", "settings": {"server": "rtmp://127.0.0.1:$2/live", "key": "secret"}}
END
  cat >"$config/basic/scenes/sfu.json" <<END
{"name": "sfu", "current_scene": "Scene", "current_program_scene": "Scene", "scene_order": [{"name": "Scene"}], "sources": [
  {"id": "scene", "name": "Scene", "settings": {"id_counter": 1, "items": [
    {"id": 1, "name": "Film", "visible": true, "pos": {"x": 0.0, "y": 0.0}, "scale": {"x": 1.0, "y": 1.0}}]}},
  {"id": "ffmpeg_source", "name": "Film", "settings": {"is_local_file": true, "local_file": "$work/film.mp4", "looping": true}}]}
END
}

one() {
  local name=$1 options=$2 port udp rtmp display=''
  read -r port udp rtmp < <(python3 -c 'import socket
made = [socket.socket(), socket.socket(type=socket.SOCK_DGRAM), socket.socket()]
for one in made: one.bind(("127.0.0.1", 0))
print(*[one.getsockname()[1] for one in made])')
  settings "$options" "$rtmp"
  GST_SFU_ACCESS='' "$ROOT/sfu" run rtmp-in KEY=secret STREAM=obs PORT="$port" UDP_PORT="$udp" RTMP_PORT="$rtmp" LAYERS=360:700k \
    >"$logs/$name-server.log" 2>&1 &
  processes+=($!)
  Xvfb -displayfd 3 -screen 0 1280x720x24 -nolisten tcp 3>"$work/display" 2>"$logs/$name-xvfb.log" &
  processes+=($!)
  for _ in $(seq 200); do
    display=$(cat "$work/display")
    if [ -n "$display" ] && (exec 3<>"/dev/tcp/127.0.0.1/$rtmp") 2>/dev/null; then break; fi
    sleep 0.1
  done
  env -u WAYLAND_DISPLAY DISPLAY=":$display" XDG_CONFIG_HOME="$work/config" HOME="$work" LIBGL_ALWAYS_SOFTWARE=1 QT_QPA_PLATFORM=xcb \
    obs --multi --startstreaming --disable-updater >"$logs/$name-obs.log" 2>&1 &
  processes+=($!)
  for _ in $(seq 600); do
    ! curl -sf "http://127.0.0.1:$port/healthz?stream=obs" >/dev/null || break
    sleep 0.1
  done
  node "$ROOT/tests/browser/play.mjs" --url "http://127.0.0.1:$port/obs" --seconds "$seconds" --settle 5 \
    --screenshot "$logs/$name.png" | python3 -c 'import json, sys
seen, name, seconds = json.load(sys.stdin), *sys.argv[1:]
keep = {key: seen[key] for key in ("firstPictureMs", "framesShown", "longestGapMs", "state")}
print(json.dumps({"settings": name, "seconds": int(seconds), **keep}))' "$name" "$seconds"
  end_all
}

one default ''
one zerolatency 'tune=zerolatency'
