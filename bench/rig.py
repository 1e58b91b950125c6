#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Puts what sfu-load, the device and the server's metrics say into one result, for rig.sh.

usage: rig.py FOLDER QUEUE [words]
"""

import json
import re
import sys
from pathlib import Path

# Metrics of the way out, which say what the kernel did not take.
METRICS = re.compile(r"sfu_\w*(send|udp|socket|segment|driver|pace|too_large|packets_late|datagrams)\w*")


def result(folder, queue):
    try:
        found = json.loads((folder / "load.json").read_text(encoding="utf-8"))
    except ValueError:
        log = (folder / "load.log").read_text(encoding="utf-8")
        found = {"errors": [f"no result: {log[-500:]}"]}
    tc = (folder / "tc").read_text(encoding="utf-8")
    drops = re.search(r"dropped (\d+)", tc)
    found["queue"] = queue
    found["queue_drops"] = int(drops[1]) if drops else None
    found["tc"] = " ".join(tc.split())
    metrics = (folder / "metrics").read_text(encoding="utf-8").splitlines()
    pairs = (line.rpartition(" ") for line in metrics)
    found["metrics"] = {name: value for name, _, value in pairs if METRICS.match(name)}
    return found


def words(found):
    def show(name):
        return "-" if found.get(name) is None else found[name]

    lines = [
        f"{show('viewers')} viewers, {found['queue']} queue: {show('viewers_with_picture')} with picture, lost "
        f"{show('lost_packets')}, unrepaired {show('unrepaired_packets')}, {show('frames_per_second_per_viewer')} frames/s",
        f"keyframes' last packet late by {show('keyframe_end_ms_p50')} / {show('keyframe_end_ms_p99')} / "
        f"{show('keyframe_end_ms_max')} ms (median / 99 % / max)",
        f"audio late by {show('audio_delay_ms_p50')} / {show('audio_delay_ms_p99')} ms (median / 99 %), lost "
        f"{show('audio_lost_packets')}; all packets {show('forward_delay_ms_p50')} / {show('forward_delay_ms_p99')} ms",
        f"queue drops {show('queue_drops')}; server {show('cpu_us_per_packet')} µs a packet, {show('cpu_percent')} % of a "
        f"core; load tool {show('load_cpu_percent')} %",
        found["tc"],
    ]
    lines += [f"{name} {value}" for name, value in found["metrics"].items()]
    lines += [f"error: {error}" for error in found.get("errors", [])]
    return "\n".join(lines)


def main():
    found = result(Path(sys.argv[1]), sys.argv[2])
    print(words(found) if sys.argv[3:] and sys.argv[3] else json.dumps(found))


main()
