#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Writes benchmark.md and benchmark.svg from the results of ./sfu bench, and from notes.md beside this file.

usage: render.py RESULTS VERSIONS FOLDER
"""

import datetime
import json
import math
import sys
from pathlib import Path

import goals

NAMES = {
    "floor": "the floor",
    "gst-sfu": "gst-sfu",
    "gst-sfu-layers": "gst-sfu, 3 layers",
    "gst-sfu-2": "gst-sfu, 2 shards",
    "janus": "Janus",
    "webrtcbin": "webrtcbin behind a tee",
    "whepserversink": "whepserversink",
}
COLOURS = {
    "floor": "#888888",
    "gst-sfu": "#0b6e4f",
    "gst-sfu-layers": "#7a3b8f",
    "gst-sfu-2": "#5fb49c",
    "janus": "#c1440e",
    "webrtcbin": "#2b59c3",
    "whepserversink": "#8f6b00",
}
WIDTH, HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 720, 440, 64, 68, 56, 24

TEXT = """\
# Benchmark

{date}. Written by `./sfu bench`, which measures anew on your machine; `./sfu bench --quick` does the first two steps,
`./sfu bench --own` leaves out the other servers.

One H.264 stream of 2.5 Mbit/s and 30 frames a second (about 270 packets a second of up to 1,150 octets, keyframes every
two seconds) to that many viewers. The server has one core, the load tool the other one; both run ahead of the machine's
other work. Between them is a veth pair. Each step starts the server anew, and systems take turns. A row in brackets was
too much for a system: not every viewer had a picture, the average one saw less than 27 of 30 frames, or the core was
full (92 %).

CPU is what the server's process used while all viewers watched, over the packets that they received. Retransmission is
on everywhere. gst-sfu also estimates each viewer's network from its arrival reports (TWCC), and with three layers (2,500,
714 and 204 kbit/s) chooses between them; the others do neither. Memory is what the process grew by over its viewers, the
first ones' share of libraries included. Delay is from the generator's send call to the viewer's
receive call, of a tenth of the viewers; "late" is the share of packets for which it is more than 50 ms. A keyframe's end is
how late the last of its packets comes, of all viewers, repaired or not.

**The floor** is a process that seals the same datagrams for as many viewers, and sends them by the same socket in the same
batches on the same core, and does nothing else ([its source](../bench/floor/src/send.rs)): no sessions, no reports of
viewers, nothing that comes in.

## Goals

{goals}

## By viewers

![CPU per packet by viewers](benchmark.svg)

| system | viewers | with picture | packets/s | CPU µs a packet (user + system) | CPU of a core | memory a viewer | delay p50 / p99 | late | keyframe's end p50 / max | join p50 / p99 |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
{rows}

{idle}

## Many streams

As rooms are: streams of 1.5 Mbit/s (about 190 packets a second), each published by WHIP and watched by a few. What comes in
is in the CPU of each packet that leaves, so that it is more where fewer watch.

| streams | viewers of each | with picture | packets/s | CPU µs a packet (user + system) | CPU of a core | delay p50 / p99 | keyframe's end p50 / max |
| --- | --- | --- | --- | --- | --- | --- | --- |
{streams}

## Rooms

Participants by LiveKit's protocol (v0), who publish three layers (2,500, 714 and 204 kbit/s) and sound, and get nine pictures and sounds of
the others (`last-n=9`): small ones, or one in full size and the others small (stage). Memory is what the process grew by for each
of them. The load tool has one core for all of them, and decrypts everything.

| publish | listen | pictures | receive | packets/s | CPU µs a packet | CPU of a core | memory each | join p50 / max |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{rooms}

A room of which many watch the first participant by WHEP (`/whep/ROOM/IDENTITY`), a lean connection each:

| publish | watch | with picture | packets/s, to participants besides | CPU µs a packet | CPU of a core | memory a viewer |
| --- | --- | --- | --- | --- | --- | --- |
{stages}

## Through a queue of 1 Gbit/s

What a network card or a shaped uplink is: the device sends 1 Gbit/s (`tbf`), and what comes faster waits. The large queue holds
4 MB, more than the socket's buffer (212,992 octets, as a stock Debian grants it, without CAP_NET_ADMIN), so that the kernel
takes no more; the small one 256 kB, less than that buffer, so that the device drops. With audio of 50 packets a second.

| queue | viewers | lost | unrepaired | frames/s a viewer | keyframe's end p50 / max | audio p50 / p99 | audio lost | dropped by the queue |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{queues}

What the device says (`tc -s qdisc`):

{devices}

## Joins

{joins}

## Far away

{far}

{notes}
## Versions

{versions}

## Systems

- **gst-sfu**: `gst-launch-1.0 sfusignaller shards=1`, published to by WHIP; with 2 shards on two cores, of which the load
  has the second one, too, where the machine has no third. CPU is then of both cores.
- **Janus**: the streaming plugin with one mountpoint fed by RTP, `videobufferkf` on, other plugins off, else as Debian
  ships it.
- **webrtcbin behind a tee**: what a GStreamer user builds without an SFU: RTP in, a `tee`, and a leaky `queue` and a
  `webrtcbin` with `do-nack` for each viewer ([its source](../bench/webrtcbin/src/main.rs)).
- **whepserversink** of gst-plugin-webrtc, `congestion-control=disabled`, given the encoded stream: it packs it for each
  viewer anew.

The exact commands are in [scripts/bench.sh](../scripts/bench.sh). Viewers are those of `./sfu load`.
"""


def value(number, digits=1, unit=""):
    return "-" if number is None else f"{number:,.{digits}f}{unit}"


def row(r):
    memory = r.get("memory_bytes_per_viewer")
    cells = [
        NAMES[r["system"]],
        f"{r['viewers']:,}" if r["passed"] else f"({r['viewers']:,})",
        value(r.get("viewers_with_picture"), 0),
        value(r.get("packets_per_second"), 0),
        cpu(r),
        value(r.get("cpu_percent"), 0, " %"),
        value(memory and memory / 1e3, 0, " kB"),
        delay(r),
        late(r),
        keyframe_end(r),
        f"{value(r.get('join_ms_p50'), 0)} / {value(r.get('join_ms_p99'), 0)} ms",
    ]
    return "| " + " | ".join(cells) + " |"


def cpu(r):
    parts = f"({value(r.get('cpu_user_us_per_packet'))} + {value(r.get('cpu_system_us_per_packet'))})"
    return f"{value(r.get('cpu_us_per_packet'))} {parts}"


def delay(r):
    return f"{value(r.get('forward_delay_ms_p50'))} / {value(r.get('forward_delay_ms_p99'))} ms"


def streams_row(r):
    each = r["viewers"] // r["streams"]
    cells = [
        f"{r['streams']:,}" if r["passed"] else f"({r['streams']:,})",
        f"{each:,}",
        value(r.get("viewers_with_picture"), 0),
        value(r.get("packets_per_second"), 0),
        cpu(r),
        value(r.get("cpu_percent"), 0, " %"),
        delay(r),
        keyframe_end(r),
    ]
    return "| " + " | ".join(cells) + " |"


def room_row(r):
    memory = r.get("rss_bytes_per_participant")
    cells = [
        value(r.get("publishers"), 0),
        value(r["listeners"], 0),
        r["pictures"],
        value(r.get("receiving"), 0) if r["passed"] else f"({value(r.get('receiving'), 0)})",
        value(r.get("packets_per_second"), 0),
        value(r.get("us_per_packet")),
        value(r.get("cpu_percent"), 0, " %"),
        value(memory and memory / 1e3, 0, " kB"),
        f"{value(r.get('join_ms_p50'), 0)} / {value(r.get('join_ms_max'), 0)} ms",
    ]
    return "| " + " | ".join(cells) + " |"


def stage_row(r):
    memory = r.get("memory_bytes_per_viewer")
    cells = [
        value(r.get("publishers"), 0),
        f"{r['viewers']:,}" if r["passed"] else f"({r['viewers']:,})",
        value(r.get("viewers_with_picture"), 0),
        f"{value(r.get('packets_per_second'), 0)} + {value(r.get('room_packets_per_second'), 0)}",
        value(goals.of_all(r)),
        value(r.get("cpu_percent"), 0, " %"),
        value(memory and memory / 1e3, 0, " kB"),
    ]
    return "| " + " | ".join(cells) + " |"


def late(r):
    timed = r.get("packets_timed")
    return f"{100 * r['packets_late'] / timed:.2f} %" if timed else "-"


def keyframe_end(r):
    return f"{value(r.get('keyframe_end_ms_p50'))} / {value(r.get('keyframe_end_ms_max'))} ms"


def queue_row(r):
    cells = [
        r["queue"],
        f"{r['viewers']:,}" if r["passed"] else f"({r['viewers']:,})",
        value(r.get("lost_packets"), 0),
        value(r.get("unrepaired_packets"), 0),
        value(r.get("frames_per_second_per_viewer")),
        keyframe_end(r),
        f"{value(r.get('audio_delay_ms_p50'))} / {value(r.get('audio_delay_ms_p99'))} ms",
        value(r.get("audio_lost_packets"), 0),
        value(r.get("queue_drops"), 0),
    ]
    return "| " + " | ".join(cells) + " |"


def device(r):
    return f"- {r['queue']}, {r['viewers']:,} viewers: `{r.get('tc') or '-'}`"


def idle(results):
    """What a publisher costs whom nobody watches."""
    lines = [
        f"A publisher whom nobody watches takes {value(r.get('cpu_percent'), 2)} % of a core." for r in results
    ]
    return "\n".join(lines)


def far(results):
    """What a browser far away saw."""
    lines = []
    for r in results:
        lines.append(
            f"Chromium, {r['seconds']} s through the load tool's proxy (`{r['link']}`), published by the same browser: pictures "
            f"were {value(r['p50Ms'], 0)} ms old (median), {value(r['p95Ms'], 0)} ms (95 %), {value(r['maxMs'], 0)} ms at most; "
            f"{r['freezes']} freezes of more than 200 ms, the longest {value(r['longestGapMs'], 0)} ms; {r['frames']:,} frames."
        )
    return "\n".join(lines) or "Not measured."


def joins(results):
    """What it costs viewers to join, and those who watch."""
    lines = []
    for r in results:
        j = r["joins"]
        lines.append(
            f"While {j['watchers']:,} viewers watched {NAMES[r['system']]}, {j['asked']:,} more joined at "
            f"{j['per_second']:,.0f} a second, and left when they had a picture: {j['with_picture']:,} had one, after "
            f"{value(j['picture_ms_p50'], 0)} / {value(j['picture_ms_p99'], 0)} ms (median / 99 %, from the request to "
            f"the first whole frame). Each took {value(j.get('cpu_ms_each'), 2)} ms of CPU. Of those who watched, {j['watchers_with_loss']:,} missed something: "
            f"{j['watchers_unrepaired_packets']:,} packets, {j['watchers_broken_frames']:,} frames."
        )
    return "\n".join(lines) or "Not measured."


def plot(results):
    shown = [r for r in results if r.get("cpu_us_per_packet")]
    xs = sorted({r["viewers"] for r in shown}) or [10]
    costs = [r["cpu_us_per_packet"] for r in shown] or [1, 10]
    ticks = [m * 10**e for e in range(-1, 5) for m in (1, 2, 5)]
    bottom = max(t for t in ticks if t <= min(costs))
    top = min(t for t in ticks if t >= max(costs))
    low, high = math.log10(xs[0]), math.log10(max(xs[-1], xs[0] * 2))
    plot_w, plot_h = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    x = lambda v: LEFT + 12 + (math.log10(v) - low) / (high - low) * (plot_w - 24)
    y = lambda v: TOP + plot_h * (1 - math.log(v / bottom) / math.log(top / bottom))
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-size="15" fill="#111">CPU per forwarded packet in µs, by viewers on one core</text>',
    ]
    for tick in (t for t in ticks if bottom <= t <= top):
        at = y(tick)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end" fill="#444">{tick:g}</text>')
    for v in xs:
        out.append(f'<text x="{x(v):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle" fill="#444">{v:,}</text>')
    out.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle" fill="#444">viewers (hollow: too many)</text>')
    at, line_y = LEFT, 34
    for system, colour in COLOURS.items():
        points = [(x(r["viewers"]), y(r["cpu_us_per_packet"]), r["passed"]) for r in shown if r["system"] == system]
        line = " ".join(f"{px:.1f},{py:.1f}" for px, py, _ in points)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for px, py, passed in points:
            fill = colour if passed else "#ffffff"
            out.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4" fill="{fill}" stroke="{colour}" stroke-width="2"/>')
        width = 30 + 7 * len(NAMES[system])
        if at + width > WIDTH:
            at, line_y = LEFT, line_y + 18
        out.append(f'<circle cx="{at + 6}" cy="{line_y}" r="4" fill="{colour}"/>')
        out.append(f'<text x="{at + 16}" y="{line_y + 4}" fill="#111">{NAMES[system]}</text>')
        at += width
    return "\n".join(out + ["</svg>", ""])


def main():
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    results = [json.loads(line) for line in lines]
    order = list(NAMES)
    reached = goals.table(results)
    by = lambda system: [r for r in results if r["system"] == system]
    queues, alone, away = by("gst-sfu-queue"), by("gst-sfu-idle"), by("gst-sfu-far")
    many = [r for r in by("gst-sfu-streams") if r.get("streams")]
    rooms, stages = [r for r in by("gst-sfu-room") if "listeners" in r], by("gst-sfu-stage")
    joined = [r for r in results if r.get("joins")]
    results = [r for r in results if r["system"] in NAMES and not r.get("joins")]
    results.sort(key=lambda r: (order.index(r["system"]), r["viewers"]))
    versions = Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()
    folder = Path(sys.argv[3])
    text = TEXT.format(
        date=datetime.date.today().isoformat(),
        rows="\n".join(row(r) for r in results),
        goals=reached,
        idle=idle(alone),
        streams="\n".join(streams_row(r) for r in many) or "| - | | | | | | | |",
        rooms="\n".join(room_row(r) for r in rooms) or "| - | | | | | | | | |",
        stages="\n".join(stage_row(r) for r in stages) or "| - | | | | | | |",
        queues="\n".join(queue_row(r) for r in queues) or "| - | | | | | | | | |",
        devices="\n".join(device(r) for r in queues) or "- not measured",
        joins=joins(joined),
        far=far([r for r in away if "p95Ms" in r]),
        notes=(Path(__file__).parent / "notes.md").read_text(encoding="utf-8"),
        versions="\n".join(f"- {v}" for v in versions),
    )
    (folder / "benchmark.md").write_text(text, encoding="utf-8")
    (folder / "benchmark.svg").write_text(plot(results), encoding="utf-8")


main()
