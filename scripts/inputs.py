#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Pipelines that take what comes from outside, with bad sources one after the other: ./sfu soak inputs.

After each one a good source is to be seen: within 5 s where nothing else wants the machine; later than 20 s is a failure. The server
must be the same process all the time, and a stream beside must go on where the pipeline has more than one. SFU_SEED says in which order;
as many are done as there is time for. Prints what was seen as JSON, and ends with 1 where something failed.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "target/inputs"
SEED = int(os.environ.get("SFU_SEED", time.time_ns() % 2**32))
FAULT = 2.5
PROMISED = 5
PATIENCE = 20

VIDEO = "-f lavfi -i testsrc2=size={size}:rate=30"
SOUND = "-f lavfi -i sine=sample_rate=48000"
X264 = "-c:v libx264 -preset ultrafast -tune zerolatency -g 30 -pix_fmt yuv420p"
AAC = "-c:a aac -ac 2"


def made(video=X264, sound=AAC, size="320x180", more=""):
    """FFmpeg's arguments for what is made at once."""
    inputs = [VIDEO.format(size=size)] * bool(video) + [SOUND] * bool(sound)
    return " ".join(["-re", " -re ".join(inputs), video, sound, more, "-shortest" if video and sound else ""]).split()


def steps(what):
    """From the sixtieth frame on timestamps are others."""
    return made(more=f"-bsf:v setts=ts='{what}'")


# What FFmpeg sends, for which containers.
SENDERS = {
    "sound alone": ("flv mpegts", made(video="")),
    "pictures alone": ("flv mpegts", made(sound="")),
    "B-frames": ("flv mpegts", made(video="-c:v libx264 -preset ultrafast -bf 3 -g 60 -pix_fmt yuv420p")),
    "4:4:4": ("flv mpegts", made(video="-c:v libx264 -preset ultrafast -g 30 -pix_fmt yuv444p")),
    "ten bits": ("flv mpegts", made(video="-c:v libx264 -preset ultrafast -g 30 -pix_fmt yuv420p10le")),
    "interlaced": ("flv mpegts", made(video=X264 + " -flags +ilme+ildct")),
    "5.1": ("flv mpegts", made(sound="-c:a aac -ac 6")),
    "mono, 8 kHz": ("flv mpegts", made(sound="-c:a aac -ac 1 -ar 8000")),
    "a tiny picture": ("flv mpegts", made(size="18x2")),
    "odd sizes": ("flv mpegts", made(video=X264.replace("420p", "444p"), size="321x177")),
    "broken pictures": ("flv mpegts", made(more="-bsf:v noise=amount=200")),
    "very broken pictures": ("flv mpegts", made(more="-bsf:v noise=amount=4")),
    "broken sound": ("flv mpegts", made(more="-bsf:a noise=amount=5")),
    "lost pictures": ("flv mpegts", made(more="-bsf:v noise=drop=not(mod(n\\,3))")),
    "MP3": ("flv mpegts", made(sound="-c:a libmp3lame -ar 44100")),
    "Sorenson and Speex's neighbours": ("flv", made(video="-c:v flv1", sound="-c:a adpcm_swf -ar 22050 -ac 1")),
    "PCM": ("flv", made(sound="-c:a pcm_s16le -ar 44100")),
    "time ahead": ("flv mpegts", steps("if(gt(N,45),TS+60/TB,TS)")),
    "time repeated": ("flv mpegts", steps("if(between(N,45,60),STARTPTS+1.5/TB,TS)")),
    "one frame ahead": ("flv mpegts", steps("if(eq(N,45),TS+60/TB,TS)")),
    "HEVC": ("mpegts", made(video="-c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt yuv420p")),
    "MPEG-2 and MP2": ("mpegts", made(video="-c:v mpeg2video", sound="-c:a mp2")),
    "AC-3": ("mpegts", made(sound="-c:a ac3")),
    "Opus": ("mpegts", made(sound="-c:a libopus")),
}


def free_ports(kinds):
    held = [socket.socket(type=kind) for kind in kinds]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class Process:
    """A process that ends with its group."""

    def __init__(self, name, command, **more):
        self.log = open(LOGS / f"{name}.log", "w", encoding="utf-8")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, start_new_session=True, **more)

    def runs(self):
        return self.process.poll() is None

    def end(self, how=signal.SIGKILL):
        """Returns how long it took."""
        asked = time.time()
        if self.runs():
            self.process.send_signal(how)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        return time.time() - asked


class Pipeline:
    """One of pipelines/, and who sends to it."""

    def __init__(self, name, folder):
        self.name, self.folder, self.beside = name, folder, None
        self.port, self.entry, udp = free_ports([socket.SOCK_STREAM, socket.SOCK_DGRAM if name == "srt-in" else socket.SOCK_STREAM, socket.SOCK_DGRAM])
        keys = [f"PORT={self.port}", f"UDP_PORT={udp}", "LAYERS=180:200k"]
        if name == "rtmp-in":
            keys += ["STREAM=in", "KEY=secret", f"RTMP_PORT={self.entry}"]
        elif name == "srt-in":
            keys += [f"SRT_PORT={self.entry}"]
        else:
            keys += ["STREAM=in", f"DIR={folder}"]
            self.write("z-good.mp4", made(more="-t 2"))
        self.server = Process(name, [ROOT / "sfu", "run", name, *keys], env={**os.environ, "GST_SFU_ACCESS": ""})
        self.until("the server", lambda: self.ask("/healthz") is not None)
        if name == "srt-in":
            self.beside = self.send("beside", made(), "beside")
            self.until("the stream beside", lambda: self.is_seen("beside"))

    def ask(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.read()
        except OSError:
            return None

    def is_seen(self, stream="in"):
        answer = self.ask(f"/api/streams/{stream}")
        info = json.loads(answer) if answer else {}
        layers = (info.get("video") or {}).get("layers") or []
        return bool(info.get("live")) and any(layer.get("active") for layer in layers)

    def until(self, what, is_so):
        began = time.time()
        while not is_so():
            if not self.server.runs():
                raise RuntimeError(f"the server ended: see {LOGS}/{self.name}.log")
            if time.time() - began > PATIENCE:
                raise RuntimeError(f"no {what} within {PATIENCE} s; streams: {self.ask('/api/streams')}")
            time.sleep(0.05)
        return time.time() - began

    @property
    def container(self):
        return {"rtmp-in": "flv", "srt-in": "mpegts"}.get(self.name, "mp4")

    def send(self, name, arguments, stream="in"):
        if self.name == "rtmp-in":
            to = ["-f", "flv", f"rtmp://127.0.0.1:{self.entry}/live/secret"]
        else:
            to = ["-f", "mpegts", f"srt://127.0.0.1:{self.entry}?streamid={stream}"]
        return Process(f"{self.name}-{name}", ["ffmpeg", "-nostdin", "-v", "warning", *arguments, *to])

    def write(self, name, arguments):
        command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *[one for one in arguments if one != "-re"], str(self.folder / name)]
        subprocess.run(command, check=True, timeout=60)

    def nonsense(self, chosen):
        """Whoever knows the port says anything."""
        kind = socket.SOCK_DGRAM if self.name == "srt-in" else socket.SOCK_STREAM
        for first in (b"", b"\x03", b"GET / HTTP/1.1\r\n\r\n", b"\x80\x00\x00\x00"):
            with socket.socket(type=kind) as one:
                one.settimeout(1)
                try:
                    one.connect(("127.0.0.1", self.entry))
                    for _ in range(20):
                        one.send(first + chosen.randbytes(1200))
                except OSError:
                    pass

    def faults(self):
        if self.container == "mp4":
            return ["an empty file", "a text", "a file that is cut off", "random octets"]
        return [name for name, (containers, _) in SENDERS.items() if self.container in containers.split()] + ["nonsense", "killed"]

    def suffers(self, fault, chosen):
        """Gives it a bad source, and returns how long a good one then took to be seen."""
        if self.container == "mp4":
            whole = (self.folder / "z-good.mp4").read_bytes()
            bad = {"an empty file": b"", "a text": b"no film\n" * 99, "a file that is cut off": whole[: len(whole) // 2], "random octets": chosen.randbytes(9_999)}
            (self.folder / "a-bad.mp4").write_bytes(bad[fault])
            time.sleep(FAULT)
            took = self.until("good file", self.is_seen)
            (self.folder / "a-bad.mp4").unlink()
            return took
        if fault == "nonsense":
            self.nonsense(chosen)
        else:
            bad = self.send("bad", SENDERS.get(fault, (None, made()))[1])
            time.sleep(FAULT)
            bad.end(signal.SIGKILL if fault == "killed" else signal.SIGTERM)
        self.until("end of the bad source", lambda: not self.is_seen())
        began = time.time()
        good = self.send("good", made())
        while True:
            # A key that is still taken refuses: encoders try again.
            if not good.runs():
                good.end()
                time.sleep(0.2)
                good = self.send("good", made())
            if self.is_seen():
                break
            self.until("answer", lambda: self.ask("/healthz") is not None)
            if time.time() - began > PATIENCE:
                good.end()
                raise RuntimeError(f"no good source within {PATIENCE} s")
            time.sleep(0.05)
        took = time.time() - began
        good.end(signal.SIGTERM)
        self.until("end of the good source", lambda: not self.is_seen())
        if self.beside and not (self.beside.runs() and self.is_seen("beside")):
            raise RuntimeError("the stream beside ended")
        return took

    def end(self):
        if self.beside:
            self.beside.end()
        return self.server.end(signal.SIGINT)


def main():
    end = time.time() + int(sys.argv[1])
    LOGS.mkdir(parents=True, exist_ok=True)
    print(f"SFU_SEED={SEED}", file=sys.stderr)
    chosen = random.Random(SEED)
    names = sys.argv[2:] or ["rtmp-in", "srt-in", "playout"]
    chosen.shuffle(names)
    done, failed, endings = {}, [], {}
    with tempfile.TemporaryDirectory() as folder:
        for n, name in enumerate(names):
            share = time.time() + (end - time.time()) / (len(names) - n)
            pipeline = Pipeline(name, Path(folder))
            faults = pipeline.faults()
            chosen.shuffle(faults)
            for fault in faults:
                # One at least.
                if time.time() > share - FAULT and any(key.startswith(name) for key in done):
                    break
                key = f"{name}: {fault}"
                try:
                    done[key] = round(pipeline.suffers(fault, chosen), 2)
                except RuntimeError as error:
                    done[key] = None
                    failed.append(f"{key}: {error}")
                    if not pipeline.server.runs():
                        break
            endings[name] = round(pipeline.end(), 2)
            if endings[name] > 4:
                failed.append(f"{name} took {endings[name]} s to end")
    late = [key for key, took in done.items() if took is not None and took > PROMISED]
    print(json.dumps({"seed": SEED, "seconds until a good source is seen": done, f"later than {PROMISED} s": late, "seconds to end": endings, "failed": failed}, indent=2))
    print(f"inputs: {len(done)} of pipeline and fault, {len(failed)} failed, {len(late)} later than {PROMISED} s")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
