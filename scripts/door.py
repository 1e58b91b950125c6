#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""People come, go and are refused for as long as is said, and memory and descriptors stay as they are: ./sfu soak door.

Prints what was seen as JSON, and ends with 1 where it grew.
"""

import http.client
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SEED = int(os.environ.get("SFU_SEED", time.time_ns() % 2**32))
KEY = "a-key-that-nobody-guesses"
RULES = "loopback play api metrics\nkey key publish takeover\nuser ann {hash} play record\n"
# What a run may grow by: a heap that is used by many threads finds its size late.
MEMORY = 16 << 20
DESCRIPTORS = 8


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Server:
    def __init__(self, folder):
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "key").write_text(KEY)
        made = subprocess.run([ROOT / "target/release/sfu-access", "password"], input="wonderland\n", capture_output=True, text=True, check=True)
        (folder / "access").write_text(RULES.format(hash=made.stdout.split()[-1]))
        keys = [f"PORT={self.port}", f"UDP_PORT={free_port() % 20000 + 20000}", "STREAM=cam1", "LAYERS=180:200k", "WIDTH=320", "HEIGHT=180", "FPS=15"]
        environment = {**os.environ, "GST_SFU_ACCESS": str(folder / "access")}
        self.log = open(folder / "server.log", "w", encoding="utf-8")
        command = [ROOT / "sfu", "run", "test-to-webrtc", *keys]
        self.process = subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, start_new_session=True)
        end = time.time() + 30
        while self.ask("GET", "/healthz?stream=cam1")[0] != 200:
            if time.time() > end or self.process.poll() is not None:
                self.end()
                sys.exit(f"the server does not start: see {folder}/server.log")
            time.sleep(0.2)

    def ask(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())
        except OSError:
            return 0, b"", {}
        finally:
            connection.close()

    def figures(self):
        _, page, _ = self.ask("GET", "/metrics")
        found = {}
        for line in page.decode().splitlines():
            name, _, value = line.rpartition(" ")
            if name and not name.startswith("#"):
                found[name] = float(value)
        return found

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()


def offer(direction):
    fingerprint = ":".join(["AB"] * 32)
    lines = [
        "v=0", "o=- 1 2 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0", "m=video 9 UDP/TLS/RTP/SAVPF 102", "c=IN IP4 0.0.0.0",
        "a=ice-ufrag:abcd", "a=ice-pwd:0123456789abcdef01234567", "a=setup:actpass", "a=mid:0", "a=rtcp-mux", "a=rtpmap:102 H264/90000",
        "a=fmtp:102 packetization-mode=1;profile-level-id=42e01f", f"a=fingerprint:sha-256 {fingerprint}", f"a={direction}", "",
    ]
    return "\r\n".join(lines)


def refused(server, rng):
    """Somebody who may not, or asks for nonsense."""
    sdp = {"Content-Type": "application/sdp"}
    name = f"s{rng.randrange(10**9)}"
    tries = [
        ("POST", f"/whip/{name}", offer("sendonly"), sdp),
        ("POST", f"/whip/{name}", offer("sendonly"), {**sdp, "Authorization": f"Bearer {name}"}),
        ("POST", f"/whep/{name}", offer("recvonly"), sdp),
        ("POST", "/whep/cam1", "nonsense", sdp),
        ("POST", "/whep/cam1", offer("recvonly"), {**sdp, "Host": "evil.example"}),
        ("GET", "/api/v1/sessions", None, {"Host": f"{name}.example"}),
        ("GET", "/api/v1/streams?limit=x", None, {}),
        ("GET", f"/session/{rng.getrandbits(128):032x}", None, {}),
        ("GET", f"/{name}", None, {}),
        ("DELETE", f"/api/v1/streams/{name}", None, {}),
    ]
    method, path, body, headers = rng.choice(tries)
    return server.ask(method, path, body, headers)[0]


def passes(server, rng):
    """Somebody who comes, and goes without having connected."""
    way, headers = ("whep/cam1", {}) if rng.random() < 0.7 else (f"whip/s{rng.randrange(10**9)}", {"Authorization": f"Bearer {KEY}"})
    direction = "recvonly" if way.startswith("whep") else "sendonly"
    status, _, fields = server.ask("POST", f"/{way}", offer(direction), {**headers, "Content-Type": "application/sdp"})
    location = {name.lower(): value for name, value in fields.items()}.get("location")
    if location and rng.random() < 0.9:
        server.ask("GET", location)
        server.ask("DELETE", location)
    return status


def main():
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 3600
    server = Server(ROOT / "target/soak-door")
    stop = threading.Event()
    counts = {}
    lock = threading.Lock()

    def work(number, act):
        rng = random.Random(SEED + number)
        while not stop.is_set():
            status = act(server, rng)
            with lock:
                counts[f"{act.__name__} {status}"] = counts.get(f"{act.__name__} {status}", 0) + 1
            time.sleep(rng.uniform(0, 0.04))

    def join():
        joined = 0
        while not stop.is_set():
            command = [ROOT / "target/release/sfu-load", "--whep", f"http://127.0.0.1:{server.port}/whep/cam1", "--json"]
            subprocess.run([*command, "--viewers", "10", "--ramp", "10/s", "--duration", "5s"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            joined += 10
        counts["viewers"] = joined

    threads = [threading.Thread(target=work, args=(n, act)) for n, act in enumerate([refused, refused, passes, passes])]
    threads.append(threading.Thread(target=join))
    for thread in threads:
        thread.start()
    samples = []
    end = time.time() + seconds
    while time.time() < end and server.process.poll() is None:
        time.sleep(min(2, max(0.1, end - time.time())))
        figures = server.figures()
        if "process_open_fds" in figures:
            samples.append((figures["process_resident_memory_bytes"], figures["process_open_fds"], figures["sfu_sessions"]))
    stop.set()
    for thread in threads:
        thread.join()
    alive = server.process.poll() is None
    server.end()
    # The first quarter is for caches to fill.
    rest = samples[len(samples) // 4:]
    third = max(1, len(rest) // 3)
    middle = lambda part, n: statistics.median(sample[n] for sample in part) if part else 0
    memory = [middle(part, 0) for part in (rest[:third], rest[-third:])]
    descriptors = [middle(part, 1) for part in (rest[:third], rest[-third:])]
    flat = alive and memory[1] - memory[0] < MEMORY and descriptors[1] - descriptors[0] <= DESCRIPTORS
    print(json.dumps({
        "seed": SEED, "seconds": seconds, "alive": alive, "counts": counts, "memory": memory, "descriptors": descriptors,
        "sessions_most": max((sample[2] for sample in samples), default=0), "flat": flat,
    }, indent=2))
    sys.exit(not flat)


main()
