# SPDX-License-Identifier: MPL-2.0
"""What the benchmark is to reach, beside what it found. Used by render.py."""

# What the keyframes of 300 viewers take on a link of 1 Gbit/s, in ms, and how much more the last packet may.
KEYFRAMES_MS, KEYFRAMES_ROOM = 145, 1.15
# Streams, viewers of each, and how much more a packet may cost than where 100 watch one.
STREAMS = [(10, 10, 1.25), (60, 3, 1.6)]


def table(results):
    rows = [f"| {what} | {goal} | {found} | {word(ok)} |" for what, goal, found, ok in checks(results)]
    return "\n".join(["| what | goal | measured | reached |", "| --- | --- | --- | --- |", *rows])


def word(ok):
    return "-" if ok is None else "yes" if ok else "**no**"


def checks(results):
    """What, goal, what was found, and whether that is it; None is not measured."""

    def find(system, viewers=None, **more):
        for r in results:
            same = r["system"] == system and viewers in (None, r["viewers"])
            if same and not r.get("joins") and all(r.get(k) == v for k, v in more.items()):
                return r
        return None

    yield queue(find("gst-sfu-queue", 60, queue="large"), "60 viewers, large queue", drops=None, lost=0, frames=29.95)
    yield queue(find("gst-sfu-queue", 60, queue="small"), "60 viewers, small queue", drops=10, lost=None, frames=29.95)
    full = find("gst-sfu-queue", 300, queue="large")
    yield queue(full, "300 viewers, large queue", drops=None, lost=None, frames=29.5)
    limit = KEYFRAMES_MS * KEYFRAMES_ROOM
    yield at_most("their keyframes' last packet", full, "keyframe_end_ms_max", limit, "ms")
    yield at_most("their audio, 99 %", full, "audio_delay_ms_p99", 20, "ms")
    yield ratio("1,000 viewers, one layer: CPU a packet", find("gst-sfu", 1000), find("floor", 1000), 1.5)
    layers, floor = find("gst-sfu-layers", 1000), find("floor", 1000)
    name = "keyframe_end_ms_max"
    yield ratio("1,000 viewers, three layers: keyframes' last packet", layers, floor, 1.3, name)
    yield late(layers, floor)
    yield ratio("10 viewers: CPU a packet", find("gst-sfu", 10), find("floor", 10), 2)
    yield at_most("a publisher whom nobody watches", find("gst-sfu-idle"), "cpu_percent", 0.5, "% of a core")
    one = find("gst-sfu-streams", streams=1)
    for streams, each, limit in STREAMS:
        what = f"{streams} streams with {each} viewers each: CPU a packet"
        yield ratio(what, find("gst-sfu-streams", streams=streams), one, limit, than="one with 100")
    # A fifth of what LiveKit takes in that form, and what a lean connection may.
    yield at_most("a room of 10 and 10 listeners: CPU a packet", find("gst-sfu-room", 20), "us_per_packet", 13, "µs")
    for viewers in (300, 1000):
        what = f"a room of 10 of which {viewers:,} watch one"
        stage = find("gst-sfu-stage", viewers)
        stage = stage and stage | {"us_of_all": of_all(stage)}
        yield at_most(f"{what}: CPU a packet", stage, "us_of_all", 3, "µs")
        yield at_most(f"{what}: memory a viewer", stage, "memory_bytes_per_viewer", 80_000, "octets")
    yield janus(results, find)
    yield from joins(results)
    far = find("gst-sfu-far")
    yield at_most("a browser far away, 95 % of its pictures", far, "p95Ms", 300, "ms old")
    yield at_most("its freezes of more than 200 ms", far, "freezes", 0, "")


def of_all(stage):
    """CPU time in µs for each packet that goes out, to who takes part in the room and to who watches."""
    cpu, packets = stage.get("cpu_percent"), stage.get("packets_per_second")
    if not measured(cpu, packets):
        return None
    return cpu * 1e4 / (packets + stage.get("room_packets_per_second", 0))


def measured(*values):
    return all(v is not None for v in values)


def at_most(what, result, name, limit, unit):
    found = result and result.get(name)
    goal = f"≤ {limit:g} {unit}".strip()
    if not measured(found):
        return what, goal, "-", None
    found_so = f"{found:.4g} {unit}".strip()
    if not result.get("passed", True):
        return what, goal, f"{found_so}, and it was too much", False
    return what, goal, found_so, found <= limit


def queue(result, what, drops, lost, frames):
    goal = (["0 lost"] if lost == 0 else ["0 unrepaired"]) + ([f"≤ {drops} dropped"] if drops is not None else [])
    goal = ", ".join([*goal, f"≥ {frames:.3g} frames/s"])
    if not result or "lost_packets" not in result:
        return what, goal, "-", None
    gone = result["lost_packets"] if lost == 0 else result["unrepaired_packets"]
    rate, dropped = result["frames_per_second_per_viewer"], result["queue_drops"]
    found = f"{result['lost_packets']:,} lost, {result['unrepaired_packets']:,} unrepaired, {dropped:,} dropped, {rate:.4g} frames/s"
    return what, goal, found, gone == 0 and rate >= frames and (drops is None or dropped <= drops)


def ratio(what, result, floor, limit, name="cpu_us_per_packet", than="the floor"):
    ours, theirs = result and result.get(name), floor and floor.get(name)
    goal = f"≤ {limit:g} × {than}"
    if not measured(ours, theirs) or not theirs:
        return what, goal, "-", None
    return what, goal, f"{ours:.3g} / {theirs:.3g} = {ours / theirs:.2f} ×", ours <= limit * theirs


def late(layers, floor):
    what, goal = "the same: packets later than 50 ms", "≤ 0.1 %, where the floor's keyframes end within 35 ms"
    if not layers or not floor or not layers.get("packets_timed"):
        return what, goal, "-", None
    share = 100 * layers["packets_late"] / layers["packets_timed"]
    fast = floor["keyframe_end_ms_max"] <= 35
    return what, goal, f"{share:.2f} %", share <= 0.1 if fast else None


def janus(results, find):
    what, goal = "against Janus, at the most viewers that it serves whole", "≥ 9 ×"
    whole = [r for r in results if r["system"] == "janus" and r["passed"]]
    best = max(whole, key=lambda r: r["viewers"], default=None)
    ours = best and find("gst-sfu", best["viewers"])
    if not ours:
        return what, goal, "-", None
    found = best["cpu_us_per_packet"] / ours["cpu_us_per_packet"]
    return what, goal, f"{found:.1f} × at {best['viewers']}", found >= 9


def joins(results):
    joined = next((r["joins"] for r in results if r.get("joins")), None)
    what, goal = "joins while 300 watch", "≥ 600 a second, each with a picture"
    watched, whole = "who watch meanwhile", "nobody misses a frame"
    if not joined:
        yield what, goal, "-", None
        yield watched, whole, "-", None
        return
    found = f"{joined['per_second']:.0f} a second, {joined['with_picture']:,} of {joined['asked']:,} with a picture"
    # The pace is what is asked for: a little less is the clock's.
    ok = joined["per_second"] >= 595 and joined["with_picture"] == joined["asked"]
    yield what, goal, found, ok
    yield watched, whole, f"{joined['watchers_with_loss']:,} of {joined['watchers']:,} did", joined["watchers_with_loss"] == 0
