#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Checks the licences of all crates that are built, and that families of crates come in one version each."""

import json
import re
import subprocess
import sys

# Licences that may be linked into a plugin under MPL-2.0.
ALLOWED = {
    "MIT", "MIT-0", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib",
    "MPL-2.0", "Unicode-3.0", "OpenSSL", "CC0-1.0", "0BSD", "BSL-1.0", "CDLA-Permissive-2.0", "Unlicense",
}
# Two versions of one of these in a process don't understand each other, or cost minutes to build.
FAMILIES = re.compile(r"^(gstreamer.*|glib.*|gio.*|str0m.*|dimpl|is|tokio|axum.*|rustls|aws-lc-.*|quinn-udp|mio|tracing.*)$")


def allowed(expression):
    """Whether an SPDX expression can be fulfilled: one of the OR branches, of each all AND parts."""
    expression = expression.replace("/", " OR ").replace("(", " ").replace(")", " ")
    return any(
        all(part.strip() in ALLOWED for part in branch.split(" AND "))
        for branch in expression.split(" OR ")
    )


def packages_of(manifest):
    """All crates that a workspace is built from."""
    metadata = json.loads(subprocess.check_output(
        ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu",
         f"--manifest-path={manifest}"]))
    used = {node["id"] for node in metadata["resolve"]["nodes"]}
    return [p for p in metadata["packages"] if p["id"] in used]


packages = packages_of("Cargo.toml")
# A plugin with a lock file of its own: nothing of it is linked with the others.
apart = packages_of("plugins/companions/fmp4/Cargo.toml")
problems = [f"{p['name']} {p['version']}: licence {p['license']}" for p in packages + apart if not allowed(p["license"] or "none")]
versions = {}
for package in packages:
    versions.setdefault(package["name"], set()).add(package["version"])
problems += [f"{name} comes in {', '.join(sorted(v))}" for name, v in sorted(versions.items())
             if FAMILIES.match(name) and len(v) > 1]
print(f"{len(packages) + len(apart)} crates: licences and versions checked")
if problems:
    print("\n".join(problems), file=sys.stderr)
sys.exit(bool(problems))
