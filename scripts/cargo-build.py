#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Called by meson: builds packages with cargo and copies their plugins to where meson wants them.

The target folder is the checkout's, so that nothing is built twice. Usage: cargo-build.py CARGO SOURCE OUT PACKAGE…
"""

import shutil
import subprocess
import sys
from pathlib import Path

cargo, source, out, *packages = sys.argv[1:]
arguments = [argument for package in packages for argument in ("-p", package)]
subprocess.run([cargo, "build", "--release", "--locked", *arguments], cwd=source, check=True)
target = Path(source) / "target/release"
for name in ("sfu", "simulcast", "ndilive", "ndi", "rswebrtc", "fallbackswitch"):
    shutil.copy2(target / f"libgst{name}.so", out)
