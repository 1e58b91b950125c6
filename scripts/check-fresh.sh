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

# A checkout of its own, where nothing is built, and then the access tool alone.
mkdir -p "$folder/checkout/crates/access/src"
cp -r "$root/sfu" "$root/scripts" "$folder/checkout"
touch "$folder/checkout/crates/access/src/main.rs"
types() { (cd "$folder/checkout" && env -i PATH="$folder" HOME="$folder" ./sfu "$@" 2>&1 </dev/null); }
program cargo '[[ $1 == --version ]] && echo cargo 99.0.0'
for command in token password; do
  [[ $(types "$command" || true) == *'Building sfu-access first'* ]] || { echo "./sfu $command builds without a word" >&2; exit 1; }
done
rm "$folder/cargo"
[[ $(types token || true) == *'cargo is missing'* ]] || { echo "./sfu token does not say that cargo is missing" >&2; exit 1; }
mkdir -p "$folder/checkout/target/release"
printf '#!/usr/bin/env bash\necho built "$@"\n' >"$folder/checkout/target/release/sfu-access"
chmod +x "$folder/checkout/target/release/sfu-access"
[[ $(types token --play cam1) == 'built token --play cam1' ]] || { echo "./sfu token needs cargo though it is built" >&2; exit 1; }
program cargo 'echo cargo 99.0.0'

# An access file that was named and can't be reached is no reason to start without one; a home that can't be written to is.
program gst-inspect-1.0 ''
program gst-launch-1.0 'echo "plays by <$GST_SFU_ACCESS>"'
printf '#!/usr/bin/env bash\nexit 1\n' >"$folder/checkout/target/release/sfu-access"
mkdir "$folder/checkout/crates/sfu-engine" "$folder/checkout/crates/sfu-engine/src"
cp "$root/crates/sfu-engine/src/ids.rs" "$folder/checkout/crates/sfu-engine/src"
cp -r "$root/pipelines" "$folder/checkout"
runs() { (cd "$folder/checkout" && env -i PATH="$folder" HOME="$folder" "$@" ./sfu run sfu 2>&1 </dev/null); }
ln -s /nowhere/access "$folder/dangling"
touch "$folder/file" "$folder/rules"
for file in "$folder/dangling" "$folder/missing" "$folder/file/access"; do
  if said=$(runs GST_SFU_ACCESS="$file"); then
    echo "./sfu run starts without the rules of $file: $said" >&2
    exit 1
  fi
  [[ $said == *"$file"* && $said != *"plays by"* ]] || { echo "./sfu run does not name $file: $said" >&2; exit 1; }
done
[[ $(runs GST_SFU_ACCESS="$folder/rules") == *"plays by <$folder/rules>"* ]]
[[ $(runs GST_SFU_ACCESS=) == *'plays by <>'* ]]
[[ $(runs LANG=C) == *'There is no access file'*'plays by <>'* ]]
mkdir -p "$folder/.config/gst-sfu"
ln -s /nowhere/access "$folder/.config/gst-sfu/access"
if said=$(runs LANG=C); then
  echo "./sfu run starts without the rules that a link names: $said" >&2
  exit 1
fi
rm "$folder/gst-inspect-1.0" "$folder/gst-launch-1.0" "$folder/checkout/target/release/sfu-access"

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
