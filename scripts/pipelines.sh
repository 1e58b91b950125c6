# SPDX-License-Identifier: MPL-2.0
# shellcheck shell=bash disable=SC2317
# Runs the files in pipelines/. Each declares its keys as `: "${KEY:=default}"  # what it is` (or `:?` without a
# default) and holds one gst-launch-1.0 command. Sourced by ./sfu.

# Prints the first parts that no stream's name may have.
reserved_names() {
  sed -n '/^pub const RESERVED/,/^];/s/^ *"\(.*\)",$/\1/p' "$ROOT/crates/sfu-engine/src/ids.rs"
}

# Prints KEY, = or ? for optional or required, its default, and what it is, separated by |.
pipeline_keys() {
  sed -nE 's/^: "\$\{([A-Z_]+):([=?])([^}]*)\}"  # (.*)$/\1|\2|\3|\4/p' "$1"
}

list_pipelines() {
  local file
  echo "usage: ./sfu run PIPELINE [KEY=VALUE…] [--print]"
  for file in "$ROOT"/pipelines/*; do
    printf '\n%s\n  %s\n' "$(basename "$file")" "$(sed -n '2s/^# //p' "$file")"
    pipeline_keys "$file" | while IFS='|' read -r key kind default what; do
      [ "$kind" = '=' ] || default='(must be given)'
      printf '    %-16s %s  [%s]\n' "$key=" "$what" "$default"
    done
  done
}

# Refuses a value that could only be a mistake.
check_value() {
  local key=$1 value=$2
  case $key in
    STREAM | FROM)
      [[ $value =~ ^[A-Za-z0-9._-]{1,64}(/[A-Za-z0-9._-]{1,64})*$ ]] ||
        die "$key=$value: a stream name has parts of A-Z a-z 0-9 . _ - joined by /"
      ! grep -qxF -- "${value%%/*}" <<<"$(reserved_names)" ||
        die "$key=$value: no stream's name begins with $(reserved_names | paste -sd' '): they are paths of the server"
      ;;
    LAYER | LAYERS)
      local layer='[1-9][0-9]{0,4}:[0-9]+(\.[0-9]+)?[kM]?(@[0-9]+([./][0-9]+)?)?'
      [[ $value =~ ^$layer(,$layer)*$ ]] ||
        die "$key=$value: it is HEIGHT:BITRATE,…, highest first, such as 720:2500k,360:700k"
      ;;
    TEMPORAL_LAYERS)
      [[ $value =~ ^[1-3]$ ]] || die "$key=$value: it is 1, 2 or 3"
      ;;
    PORT | UDP_PORT | RTMP_PORT | SRT_PORT | RTSP_PORT)
      if ! [[ $value =~ ^[0-9]{1,5}$ ]] || [ "$value" -gt 65535 ]; then
        die "$key=$value: a port is a number from 0 to 65535"
      fi
      ;;
    WIDTH | HEIGHT | FPS | SHARDS | LATENCY | SEGMENTS | LAST_N)
      [[ $value =~ ^[0-9]{1,5}$ ]] || die "$key=$value: a number is expected"
      ;;
    SEGMENT)
      if ! [[ $value =~ ^[0-9]{1,5}$ ]] || [ "$value" -lt 1000 ] || [ "$value" -gt 20000 ]; then
        die "$key=$value: a segment is 1000 to 20000 ms long"
      fi
      ;;
    SPLIT_TIME | SPLIT_SIZE | DELETE_AFTER | MIN_FREE)
      [[ $value =~ ^(0|[1-9][0-9]{0,5})$ ]] || die "$key=$value: a number up to 999999 is expected"
      ;;
    CODEC)
      [[ $value =~ ^(h264|vp8)$ ]] || die "$key=$value: it is h264 or vp8"
      ;;
    ENCODE)
      [[ $value =~ ^(auto|always|never)$ ]] || die "$key=$value: it is auto, always or never"
      ;;
    URL)
      [[ $value =~ ^rtsp[stu]?://[^[:space:]\"\\]+$ ]] || die "$key=$value: an address is rtsp://…, rtsps://… or rtspt://… (TCP alone)"
      ;;
    SOURCE)
      # It becomes a part of a pipeline's description.
      [[ $value =~ ^[^[:space:]\"\\]+$ ]] || die "$key=$value: it has blanks, quotes or backslashes"
      ;;
    WHIP)
      [[ $value =~ ^(https?://[^[:space:]\"\\]+)?$ ]] || die "$key=$value: an address is http://… or https://…"
      ;;
    DRAIN_TIMEOUT)
      [[ $value =~ ^[0-9]{1,8}$ ]] || die "$key=$value: a number of ms is expected"
      ;;
    DRAIN_REDIRECT)
      [[ $value =~ ^(https?://[^[:space:]/\"\\]+/?)?$ ]] || die "$key=$value: a server is https://HOST[:PORT]"
      ;;
    TRACKS)
      [[ $value =~ ^[1-8]$ ]] || die "$key=$value: it is 1 to 8"
      ;;
    SOUND)
      [[ $value =~ ^(yes|no)$ ]] || die "$key=$value: it is yes or no"
      ;;
    RTSP_UDP)
      [[ $value =~ ^([0-9]{1,5}-[0-9]{1,5})?$ ]] || die "$key=$value: it is FIRST-LAST, such as 20000-20099"
      ;;
    PROTOCOLS)
      [[ $value =~ ^(tcp|udp|tcp\+udp)$ ]] || die "$key=$value: it is tcp, udp or tcp+udp"
      ;;
    AUTH)
      [[ $value =~ ^(basic|digest|both)$ ]] || die "$key=$value: it is basic, digest or both"
      ;;
    PUSH)
      check_push "$value"
      ;;
    API_KEYS | STREAMS | CERTIFICATE | PRIVATE_KEY | RTMP_CERTIFICATE | RTMP_PRIVATE_KEY | KEY | KEYS | KEYS_FILE | TEMPLATE | USERS | USERS_FILE | MICROPHONE)
      # Empty is a choice.
      ;;
    *)
      [ -n "$value" ] || die "$key= has no value"
      ;;
  esac
}

# Refuses RTMP addresses that could not be one, without telling the stream keys that are in them.
check_push() {
  local address count=0
  local -a addresses
  read -ra addresses <<<"${1//,/ }"
  for address in "${addresses[@]}"; do
    count=$((count + 1))
    [[ $address =~ ^rtmps?://[^/]+/[^/]+/.+$ && $address != *[\"\'\\]* ]] ||
      die "PUSH: address $count is not rtmp://HOST/APPLICATION/KEY or rtmps://…"
  done
}

run_pipeline() {
  local name='' print=false argument key file
  local -a given=()
  for argument in "$@"; do
    case $argument in
      --print) print=true ;;
      -*) die "run: there is no option $argument; there is --print" ;;
      *=*) given+=("$argument") ;;
      *)
        [ -z "$name" ] || die "run: one pipeline at a time, got $name and $argument"
        name=$argument
        ;;
    esac
  done
  if [ -z "$name" ]; then
    list_pipelines
    return
  fi
  file=$ROOT/pipelines/$name
  [[ $name != */* && -f $file ]] ||
    die "there is no pipeline '$name'; there are: $(basename -a "$ROOT"/pipelines/* | paste -sd' ')"
  local keys
  keys=$(pipeline_keys "$file" | cut -d'|' -f1)
  for argument in "${given[@]}"; do
    key=${argument%%=*}
    grep -qxF -- "$key" <<<"$keys" ||
      die "$name has no key $key; its keys are: $(paste -sd' ' <<<"$keys")"
    check_value "$key" "${argument#*=}"
    export "${key}=${argument#*=}"
  done
  # What comes from the environment is typed by somebody, too.
  for key in $keys; do
    [ -z "${!key:-}" ] || check_value "$key" "${!key}"
  done
  for key in $(pipeline_keys "$file" | awk -F'|' '$2 == "?" {print $1}'); do
    [ -n "${!key:-}" ] || die "$name needs $key=…: $(pipeline_keys "$file" | grep "^$key" | cut -d'|' -f4)"
  done
  if $print; then
    print_pipeline "$file"
  else
    start_pipeline "$file"
  fi
}

# Shows the command with everything filled in, quoted so that a shell takes it as it is.
print_pipeline() (
  gst-launch-1.0() {
    local argument line=gst-launch-1.0
    for argument in "$@"; do
      printf -v argument '%q' "$argument"
      # An exclamation mark by itself links elements, and no shell minds it there.
      [ "$argument" != '\!' ] || argument='!'
      line+=" $argument"
    done
    echo "$line"
  }
  # shellcheck disable=SC1090
  source "$1"
)

# Names the file that says who may do what, GST_SFU_ACCESS; where that is set and empty there is none.
name_access() {
  export GST_SFU_ACCESS=${GST_SFU_ACCESS-${XDG_CONFIG_HOME:-${HOME:-/var/lib}/.config}/gst-sfu/access}
  # The API keys of rooms are beside it.
  GST_SFU_API_KEYS=$(dirname "${GST_SFU_ACCESS:-./access}")/api.keys
  export GST_SFU_API_KEYS
}

# Makes that file at the first start, and says the key for who publishes from another machine that one time. Where one was named,
# or something is there that can't be reached, nothing starts without its rules.
prepare_access() {
  local tool=$ROOT/target/release/sfu-access named=${GST_SFU_ACCESS:-}
  name_access
  [ -n "$GST_SFU_ACCESS" ] || return 0
  if [ ! -e "$GST_SFU_ACCESS" ]; then
    if [ -x "$tool" ] && "$tool" init >&2; then return 0; fi
    if [ -n "$named" ] || [ -L "$GST_SFU_ACCESS" ]; then
      die "the access file $GST_SFU_ACCESS is not there or can't be reached, and could not be made: nothing is started without its rules. GST_SFU_ACCESS= is to have none"
    fi
    echo "There is no access file: only this machine may publish. GST_SFU_ACCESS names another place for it." >&2
    GST_SFU_ACCESS=
  fi
}

# Makes the API key of rooms where this pipeline has some and is told of none.
prepare_keys() {
  local tool=$ROOT/target/release/sfu-access
  if grep -q GST_SFU_API_KEYS "$1" && [ -z "${API_KEYS:-}" ] && [ -n "$GST_SFU_ACCESS" ] && [ -x "$tool" ]; then
    "$tool" keys >&2
  fi
}

# Becomes the command, with the plugins of this checkout where they are built.
start_pipeline() {
  if [ -f "$ROOT/target/release/libgstsfu.so" ] && [ -z "${GST_REGISTRY:+${GST_PLUGIN_PATH:-}}" ]; then
    # A registry of our own: the plugins change with each build.
    export GST_REGISTRY=${GST_REGISTRY:-$ROOT/target/registry.bin}
    export GST_PLUGIN_PATH=$ROOT/target/release${GST_PLUGIN_PATH:+:$GST_PLUGIN_PATH}
  fi
  if ! command -v gst-inspect-1.0 >/dev/null; then
    die "GStreamer is missing: run './sfu packages run', and './sfu build' if you have not"
  fi
  if ! gst-inspect-1.0 --exists --atleast-version=0.0 sfusink; then
    die "the plugins are not built or not installed: run './sfu build'"
  fi
  prepare_access
  prepare_keys "$1"
  # A stock limit of 1,024 open files would leave few HTTP connections: sfusignaller derives their number from it.
  ulimit -Sn hard || true
  gst-launch-1.0() {
    # Plays the same line, and ends it cleanly also on SIGTERM and SIGHUP: see crates/run/src/main.rs.
    local player=$ROOT/target/release/sfu-run
    [ -x "$player" ] || player=$(type -P gst-launch-1.0)
    exec "$player" "$@"
  }
  # shellcheck disable=SC1090
  source "$1"
}
