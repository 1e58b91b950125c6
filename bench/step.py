#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Adds a system's name to what was measured, and fails where that many viewers were too much for it.

usage: step.py SYSTEM VIEWERS FILE…

Several files are of several processes, and make one result.
"""

import json
import sys

# A core that is this busy has nothing left.
SATURATED_PERCENT = 92
CORES = {"gst-sfu-2": 2}
# Of the 30 frames a second, those that must come whole to the average viewer.
FRAMES_NEEDED = 27


def passed(system, viewers, result):
    if system == "floor":
        enough = result.get("lost_packets", 1) == 0
    elif system in ("gst-sfu-idle", "gst-sfu-far"):
        return not result.get("errors")
    elif system == "gst-sfu-room":
        # Where one publishes, it gets nothing.
        enough = result.get("failed") == 0 and result.get("receiving") == viewers
    else:
        frames = result.get("frames_per_second_per_viewer", 0)
        enough = result.get("viewers_with_picture") == viewers and frames >= FRAMES_NEEDED
    return enough and (result.get("cpu_percent") or 100) < SATURATED_PERCENT * CORES.get(system, 1)


def main():
    system, viewers = sys.argv[1], int(sys.argv[2])
    result = {}
    try:
        for path in sys.argv[3:]:
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
                # Of who takes part while others watch, what goes out to them.
                if "packets_per_second" in result:
                    result["room_packets_per_second"] = result["packets_per_second"]
                result |= found
    except ValueError:
        result = {"viewers_with_picture": 0, "errors": ["no result within the time"]}
    result["viewers"] = viewers
    result["system"] = system
    result["passed"] = passed(system, viewers, result)
    print(json.dumps(result))
    sys.exit(not result["passed"])


main()
