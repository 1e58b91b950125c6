#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Installs the WebRTC stacks that tests/e2e/stacks.rs drives: of Node.js into node_modules, of Python into venv.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
npm ci --silent --no-audit --no-fund
cmp -s requirements.txt venv/requirements.txt || {
  rm -rf venv
  /usr/bin/python3 -m venv venv
  venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
  cp requirements.txt venv/
}
