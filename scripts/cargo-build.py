#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Called by meson: builds packages with cargo and copies their plugins to where meson wants them.

The target folder is the checkout's, so that nothing is built twice. Usage: cargo-build.py CARGO SOURCE OUT PACKAGE…
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

cargo, source, out, *packages = sys.argv[1:]
ours = subprocess.run([cargo, "metadata", "--no-deps", "--format-version=1"], cwd=source, check=True, capture_output=True)
members = {package["name"] for package in json.loads(ours.stdout)["packages"]}
# Cargo takes members of the workspace and their dependencies apart only.
for group in ([p for p in packages if p in members], [p for p in packages if p not in members]):
    arguments = [argument for package in group for argument in ("-p", package)]
    subprocess.run([cargo, "build", "--release", "--locked", *arguments], cwd=source, check=True)
# It has a lock file of its own: see its Cargo.toml.
subprocess.run([cargo, "build", "--release", "--locked", "-p", "gst-plugin-fmp4",
                "--manifest-path", "plugins/companions/fmp4/Cargo.toml", "--target-dir", "target"], cwd=source, check=True)
target = Path(source) / "target/release"
for name in ("sfu", "simulcast", "ndilive", "rtmpserver", "supervisor", "ndi", "rswebrtc", "fallbackswitch", "fmp4"):
    shutil.copy2(target / f"libgst{name}.so", out)
