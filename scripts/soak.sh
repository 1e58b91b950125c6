# SPDX-License-Identifier: MPL-2.0
# shellcheck shell=bash
# Runs something for long, and says what it was like: ./sfu soak. Sourced by ./sfu.

run_soak() {
  local name=${1:-} seconds=${2:-300}
  [[ $seconds =~ ^[1-9][0-9]*$ ]] || die "soak: '$seconds' is no number of seconds"
  case $name in
    far)
      install_packages test
      build
      "$ROOT/scripts/far.sh" "$seconds" | python3 -c 'import json, sys
seen = json.load(sys.stdin)
print(json.dumps(seen, indent=2))
good = seen["p95Ms"] is not None and seen["p95Ms"] <= 300 and seen["freezes"] == 0
print("far: " + ("reached" if good else "not reached") + ": 95 % within 300 ms, and no freeze above 200 ms")
sys.exit(not good)'
      ;;
    door)
      build
      "$ROOT/scripts/door.py" "$seconds"
      ;;
    peers)
      install_packages test
      SFU_SECONDS=$seconds cargo test --release --workspace --test simulation -- \
        --ignored --nocapture peers::fifty_peers_for_an_hour
      ;;
    '') die "soak: which one? There are door, far and peers" ;;
    *) die "soak: there is no '$name'; there are door, far and peers" ;;
  esac
}
