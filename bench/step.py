#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Adds a system's name to what sfu-load measured, and fails where that many viewers were too much for it.

usage: step.py SYSTEM VIEWERS FILE
"""

import json
import sys

# A core that is this busy has nothing left.
SATURATED_PERCENT = 92
CORES = {"gst-sfu-2": 2}
# Of the 30 frames a second, those that must come whole to the average viewer.
FRAMES_NEEDED = 27

system, viewers, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
try:
    with open(path, encoding="utf-8") as file:
        result = json.load(file)
except ValueError:
    result = {"viewers": viewers, "viewers_with_picture": 0, "errors": ["no result within the time"]}
enough = result["viewers_with_picture"] == viewers and result["frames_per_second_per_viewer"] >= FRAMES_NEEDED
result["system"] = system
result["passed"] = enough and (result.get("cpu_percent") or 100) < SATURATED_PERCENT * CORES.get(system, 1)
print(json.dumps(result))
sys.exit(not result["passed"])
