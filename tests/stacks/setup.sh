#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Installs the WebRTC stacks that tests/e2e/stacks.rs drives, and LiveKit's SDKs with their own tests for tests/e2e/rooms_sdks.rs:
# of Node.js into node_modules, of Python into venv. The one in Rust is built.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
npm ci --silent --no-audit --no-fund
cargo build --locked --quiet --manifest-path webrtc-rs/Cargo.toml --target-dir webrtc-rs/target
cmp -s requirements.txt venv/requirements.txt || {
  rm -rf venv
  /usr/bin/python3 -m venv venv
  pip=(venv/bin/python -m pip --quiet --disable-pip-version-check)
  "${pip[@]}" install -r requirements.txt
  # Its tests are in the source package alone.
  "${pip[@]}" download --no-deps --no-binary livekit --dest venv/livekit "$(grep '^livekit==' requirements.txt)"
  tar -xzf venv/livekit/livekit-*.tar.gz -C venv/livekit --strip-components=1
  cp requirements.txt venv/
}
