# SPDX-License-Identifier: MPL-2.0
# shellcheck shell=bash
# All tests. Sourced by ./sfu.

# Installs into a folder of its own: all plugins that were built must be there.
install_by_meson() {
  local prefix=$ROOT/target/meson/prefix
  rm -rf target/meson
  meson setup target/meson --prefix "$prefix" --libdir lib >/dev/null
  meson install -C target/meson --quiet
  diff <(cd target/release && ls libgst*.so) <(cd "$prefix/lib/gstreamer-1.0" && ls) ||
    die "meson.build does not install what is built"
}

run_tests() {
  install_packages test
  cd "$ROOT" || exit
  echo "== NDI runtime, browser drivers and WebRTC stacks for the tests"
  tests/ndi/setup.sh >/dev/null
  (cd tests/browser && npm ci --silent --no-audit --no-fund)
  tests/stacks/setup.sh
  echo "== build"
  build
  echo "== installation"
  install_by_meson
  echo "== scripts, pages and documents"
  shellcheck -x sfu scripts/*.sh bench/*.sh pipelines/* tests/ndi/setup.sh tests/stacks/setup.sh .ci/run
  for file in web/*.js tests/browser/*.mjs tests/browser/*.js tests/stacks/*.mjs; do node --check "$file"; done
  scripts/check-docs.py
  scripts/check-units.sh
  scripts/check-fresh.sh
  scripts/inspect.sh --check
  echo "== tests"
  if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --release --workspace
  else
    # One after the other: the end-to-end tests measure, and must not disturb each other.
    RUST_TEST_THREADS=1 cargo test --release --workspace --no-fail-fast
  fi
  echo "== bad sources, a sample that changes with its seed"
  python3 scripts/inputs 12 rtmp-in srt-in
  echo "Ran: shellcheck, node --check, documents, gst-inspect texts, and all tests of the workspace:"
  echo "the engine (unit, property and simulated network), elements, real NDI, RTMP, SRT, RTSP, HLS, nginx, Chromium, Firefox,"
  echo "webrtcbin, libdatachannel, werift, webrtc-rs, aiortc and FFmpeg's WHIP."
}
