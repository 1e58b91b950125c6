#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Checks what a machine that lacks things says to who types a command first, with stand-ins for what would install them.
# shellcheck disable=SC2016 # The scripts of the stand-ins are theirs to expand.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# A machine's basic programs, and nothing else.
for program in awk basename bash cat cut dirname env grep head id mktemp nproc paste rm sed seq sleep sort uname; do
  ln -s "$(type -P "$program")" "$folder/$program"
done

program() {
  printf '#!/usr/bin/env bash\n%s\n' "$2" >"$folder/$1"
  chmod +x "$folder/$1"
}

# Types a command, which has to fail and to say all of these.
says() {
  local command=$1 said expected
  shift
  # shellcheck disable=SC2086
  if said=$(cd "$root" && env -i PATH="$folder" HOME="$folder" APT_PATIENCE="${patience:-1}" ./sfu $command 2>&1 </dev/null); then
    echo "./sfu $command does not fail: $said" >&2
    exit 1
  fi
  for expected; do
    [[ $said == *"$expected"* ]] || {
      printf './sfu %s does not say "%s", but:\n%s\n' "$command" "$expected" "$said" >&2
      exit 1
    }
  done
  [ "$(wc -l <<<"$said")" -le 3 ] || {
    printf './sfu %s says too much:\n%s\n' "$command" "$said" >&2
    exit 1
  }
}

for command in build load "load --help"; do says "$command" 'cargo is missing' rustup; done
says 'run sfu' 'GStreamer is missing' './sfu packages run' './sfu build'
program cargo 'echo cargo 1.0.0'
says build 'rustup update'
program cargo 'echo cargo 99.0.0'
for command in build load; do says "$command" 'cc pkg-config' './sfu packages build'; done
program cc ''
program pkg-config '[[ $2 != gstreamer-webrtc-1.0 ]]'
for command in build load; do says "$command" gstreamer-webrtc-1.0 './sfu packages build'; done
says 'run sfu' './sfu build'
program gst-inspect-1.0 'exit 1'
says 'run sfu' './sfu build'

# What is installed waits for others who use apt, in both of its steps.
program dpkg-query 'echo unpacked'
program id 'echo 0'
program apt-get 'echo "$*" >>"$HOME/apt"; [[ $* == *install* ]] || { echo "E: Could not get lock /var/lib/apt/lists/lock" >&2; exit 100; }'
patience=3 says 'packages run' 'another program has used apt for 3 s'
[ "$(wc -l <"$folder/apt")" -ge 2 ]
program apt-get 'echo "$*" >>"$HOME/apt"; [ ! -e "$HOME/busy" ] || { rm "$HOME/busy"; echo "E: Could not get lock" >&2; exit 100; }'
touch "$folder/busy"
(cd "$root" && env -i PATH="$folder" HOME="$folder" ./sfu packages run >/dev/null)
tail -n1 "$folder/apt" | grep -q 'DPkg::Lock::Timeout=600 install'
program apt-get 'echo "E: no network" >&2; exit 100'
says 'packages build' 'no network'
echo "a fresh machine's first commands checked"
