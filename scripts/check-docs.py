#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Checks that the commands in README.md and docs/ are ones that work.

Each `./sfu` command must exist and each of its pipelines take the keys that are given; each element of a
`gst-launch-1.0` or `gst-inspect-1.0` line must exist; each relative link must lead somewhere.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = {"demo", "run", "load", "bench", "build", "test", "doctor", "packages", "help", "token", "password"}
ENVIRONMENT = {
    **os.environ,
    "GST_PLUGIN_PATH": str(ROOT / "target/release"),
    "GST_REGISTRY": os.environ.get("GST_REGISTRY", str(ROOT / "target/registry.bin")),
}
# Words of a pipeline that can be an element: at its beginning, or behind a link or another element's properties.
ELEMENT = re.compile(r"^[a-z][a-z0-9_]*$")
found = 0
wrong = []


def commands(text):
    """Lines of fenced blocks, with continued lines joined."""
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", text, re.S | re.M):
        yield from block.replace("\\\n", " ").splitlines()


def exists(element):
    return subprocess.run(["gst-inspect-1.0", "--exists", "--atleast-version=0.0", element], env=ENVIRONMENT, check=False).returncode == 0


def check_sfu(words):
    if len(words) < 2 or words[1] not in COMMANDS:
        return f"./sfu has no command {words[1:2]}"
    if words[1] == "run" and len(words) > 2:
        run = subprocess.run([str(ROOT / "sfu"), *words[1:], "--print"], capture_output=True, text=True, check=False)
        if run.returncode != 0:
            return run.stderr.strip()
    return None


def check_elements(words):
    for word in words:
        if ELEMENT.match(word) and not exists(word):
            return f"there is no element {word}"
    return None


def check(line):
    """Why a line does not work, or None; lines that are no commands of ours are passed over."""
    global found
    if not re.search(r"(^|\s)(\./sfu|gst-launch-1\.0|gst-inspect-1\.0)\s", line):
        return None
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        return str(error)
    while words and re.match(r"^[A-Z_0-9]+=", words[0]):
        words = words[1:]
    if not words:
        return None
    program = words[0]
    if program not in ("./sfu", "gst-launch-1.0", "gst-inspect-1.0"):
        return None
    found += 1
    return check_sfu(words) if program == "./sfu" else check_elements(words[1:])


for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
    text = document.read_text()
    name = document.relative_to(ROOT)
    for line in commands(text):
        problem = check(line.strip())
        if problem:
            wrong.append(f"{name}: {line.strip()}\n    {problem}")
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        if not (document.parent / link).exists():
            wrong.append(f"{name}: the link to {link} leads nowhere")

print(f"{found} commands in the documents checked")
if wrong:
    print("\n".join(wrong), file=sys.stderr)
sys.exit(1 if wrong or found == 0 else 0)
