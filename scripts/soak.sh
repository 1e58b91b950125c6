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
    obs)
      install_packages obs
      build
      # The two settings share the time.
      "$ROOT/scripts/obs.sh" $(((seconds + 1) / 2)) | python3 -c 'import json, sys
runs = [json.loads(line) for line in sys.stdin]
print(json.dumps(runs, indent=2))
good = len(runs) == 2 and all(run["longestGapMs"] <= 500 and run["framesShown"] >= 15 * run["seconds"] for run in runs)
print("obs: " + ("reached" if good else "not reached") + ": both settings seen without a gap above 500 ms")
sys.exit(not good)'
      ;;
    inputs)
      install_packages test
      "$ROOT/tests/ndi/setup.sh" >/dev/null
      build
      python3 "$ROOT/scripts/inputs" "$seconds"
      ;;
    debian13)
      "$ROOT/scripts/debian13.sh"
      ;;
    door)
      build
      "$ROOT/scripts/door.py" "$seconds"
      ;;
    fuzz)
      # Each parser in turn, for as long as is asked for.
      SFU_FUZZ_SECONDS=$seconds cargo test --release --workspace --lib --bins --test hostile --test offers --test access -- \
        fuzz_ --nocapture --test-threads=1
      ;;
    peers)
      install_packages test
      SFU_SECONDS=$seconds cargo test --release --workspace --test simulation -- \
        --ignored --nocapture peers::fifty_peers_for_an_hour
      ;;
    channels)
      install_packages test
      # By messages, not by seconds.
      SFU_MESSAGES=10000 cargo test --release --workspace --lib --test channels -- channel --nocapture --test-threads=1
      ;;
    '') die "soak: which one? There are channels, debian13, door, far, fuzz, inputs, obs and peers" ;;
    *) die "soak: there is no '$name'; there are channels, debian13, door, far, fuzz, inputs, obs and peers" ;;
  esac
}
