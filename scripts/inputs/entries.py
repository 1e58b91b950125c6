# SPDX-License-Identifier: MPL-2.0
"""The ways in: for each, the keys of its pipeline, who sends well, and who does not."""

import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import sources
from changed import CHANGED, Between
from process import ROOT, Process, elements, free_ports

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
# How long a bad source is there.
FAULT = 2.5
LOCAL = "127.0.0.1"


def speak_nonsense(kind, port, chosen):
    """Whoever knows the port says anything."""
    for first in (b"", b"\x03", b"GET / HTTP/1.1\r\n\r\n", b"\x80\x00\x00\x00", b"\x00\x01\x00\x08\x21\x12\xa4\x42"):
        with socket.socket(type=kind) as one:
            one.settimeout(1)
            try:
                one.connect((LOCAL, port))
                for _ in range(20):
                    one.send(first + chosen.randbytes(1200))
            except OSError:
                pass


class Entry:
    """A way in. `several`: a stream beside is to go on meanwhile."""

    several = False
    # The stream that is to be seen, and from how many bits a second on: what stands in for a source makes fewer.
    seen, least = "in", 0

    def __init__(self, name, folder, port, udp):
        self.name, self.folder, self.port, self.udp = name, folder, port, udp

    def keys(self):
        return ["STREAM=in", "LAYERS=180:200k"]

    def faults(self):
        raise NotImplementedError

    def good(self, stream="in"):
        raise NotImplementedError

    def bad(self, fault, chosen):
        """For as long as a fault lasts."""
        raise NotImplementedError

    def lasts(self, process, fault):
        time.sleep(FAULT)
        process.end(signal.SIGKILL if fault == "killed" else signal.SIGTERM)

    def end(self):
        pass


class Ffmpeg(Entry):
    """FFmpeg sends by RTMP or SRT."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.kind = TCP if self.name == "rtmp-in" else UDP
        self.container = "flv" if self.name == "rtmp-in" else "mpegts"
        self.several = self.name == "srt-in"
        (self.entry,) = free_ports([self.kind])

    def keys(self):
        if self.name == "rtmp-in":
            return [*super().keys(), "KEY=secret", f"RTMP_PORT={self.entry}"]
        return ["LAYERS=180:200k", f"SRT_PORT={self.entry}"]

    def faults(self):
        return [name for name, (containers, _) in sources.FFMPEG.items() if self.container in containers.split()] + ["nonsense", "killed"]

    def send(self, name, arguments, stream):
        path = f"rtmp://{LOCAL}:{self.entry}/live/secret" if self.container == "flv" else f"srt://{LOCAL}:{self.entry}?streamid={stream}"
        return Process(f"{self.name}-{name}", ["ffmpeg", "-nostdin", "-v", "warning", *arguments, "-f", self.container, path])

    def good(self, stream="in"):
        return self.send(stream, sources.made(), stream)

    def bad(self, fault, chosen):
        if fault == "nonsense":
            speak_nonsense(self.kind, self.entry, chosen)
        else:
            self.lasts(self.send("bad", sources.FFMPEG.get(fault, (None, sources.made()))[1], "in"), fault)


class Files(Entry):
    """A folder of files that are played one after the other."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        command = [one for one in sources.made(more="-t 2") if one != "-re"]
        subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", *command, str(self.folder / "z-good.mp4")], check=True, timeout=60)

    def keys(self):
        return [*super().keys(), f"DIR={self.folder}"]

    def faults(self):
        return ["an empty file", "a text", "a file that is cut off", "random octets"]

    def good(self, stream="in"):
        return None

    def bad(self, fault, chosen):
        whole = (self.folder / "z-good.mp4").read_bytes()
        content = {"an empty file": b"", "a text": b"no film\n" * 99, "a file that is cut off": whole[: len(whole) // 2], "random octets": chosen.randbytes(9_999)}
        bad = self.folder / "a-bad.mp4"
        bad.write_bytes(content[fault])
        time.sleep(FAULT)
        bad.unlink()


class Nobody(threading.Thread):
    """Listens where a camera should, and answers everything with the same octets."""

    def __init__(self, port, answer):
        super().__init__(daemon=True)
        self.answer, self.ended, self.held = answer, False, []
        self.listener = socket.create_server((LOCAL, port))
        self.listener.settimeout(0.1)
        self.start()

    def run(self):
        while not self.ended:
            try:
                one, _ = self.listener.accept()
            except TimeoutError:
                continue
            self.held.append(one)
            try:
                one.settimeout(0.2)
                one.recv(4096)
                one.sendall(self.answer)
            except OSError:
                pass

    def end(self):
        self.ended = True
        self.join()
        for one in (self.listener, *self.held):
            one.close()


class Camera(Entry):
    """An RTSP camera, which the pipeline calls."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        (self.entry,) = free_ports([TCP])

    def keys(self):
        source = "URL" if self.name == "rtsp-in" else "SOURCE"
        more = [] if self.name == "rtsp-in" else [f"HLS={self.folder}/hls", f"DIR={self.folder}/recordings", f"RTSP_PORT={free_ports([TCP])[0]}"]
        return [*super().keys(), f"{source}=rtsp://{LOCAL}:{self.entry}/live", *more]

    def faults(self):
        return [*sources.CAMERAS, *CHANGED, *sources.NO_CAMERAS, "killed", "nothing there"]

    def camera(self, name, line, port=None):
        command = ["/usr/bin/python3", ROOT / "tests/rtsp_server.py", str(port or self.entry), line]
        return Process(f"{self.name}-{name}", command, env=elements())

    def good(self, stream="in"):
        return self.camera("good", sources.camera())

    def bad(self, fault, chosen):
        if fault in sources.NO_CAMERAS:
            answer = sources.NO_CAMERAS[fault]
            nobody = Nobody(self.entry, chosen.randbytes(50_000) if answer is None else answer)
            time.sleep(FAULT)
            nobody.end()
        elif fault in CHANGED:
            (port,), changes = free_ports([TCP]), CHANGED[fault]
            line = sources.camera(sound=changes.sound) if changes.sound else sources.camera()
            between = Between(self.entry, port, changes)
            self.lasts(self.camera("bad", line, port), fault)
            between.end()
        elif fault == "nothing there":
            time.sleep(FAULT)
        else:
            self.lasts(self.camera("bad", sources.CAMERAS.get(fault, sources.camera())), fault)


class Ndi(Entry):
    """An NDI sender, at the first port that NDI's runtime takes."""

    least = 20_000

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.entry = next(port for port in range(5961, 6100) if self.is_free(port))

    @staticmethod
    def is_free(port):
        with socket.socket() as one:
            return one.connect_ex((LOCAL, port)) != 0

    def keys(self):
        return [*super().keys(), f"NDI={LOCAL}:{self.entry}"]

    def faults(self):
        return [*sources.NDI, "nonsense", "killed"]

    def sender(self, name, arguments):
        command = [sys.executable, ROOT / "tests/ndi/send.py", "--name", "in", *arguments]
        return Process(f"{self.name}-{name}", command, env={**elements(), "PYTHONPATH": str(ROOT / ".cache/ndi")})

    def good(self, stream="in"):
        return self.sender("good", sources.GOOD_NDI)

    def bad(self, fault, chosen):
        if fault == "nonsense":
            nobody = Nobody(self.entry, chosen.randbytes(50_000))
            time.sleep(FAULT)
            nobody.end()
        else:
            self.lasts(self.sender("bad", sources.NDI.get(fault, sources.GOOD_NDI)), fault)


class Whip(Entry):
    """Publishers by WHIP, of several pipelines."""

    several = True

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.seen = "out" if self.name == "re-encode" else "in"

    def keys(self):
        return {
            "sfu": [],
            "whip-to-hls": ["STREAM=in", f"DIR={self.folder}/hls"],
            "record": ["STREAM=in", f"DIR={self.folder}/recordings"],
            "re-encode": ["FROM=in", "STREAM=out", "LAYERS=180:200k"],
            # Nobody is there to push to.
            "studio": ["STREAM=in", f"PUSH=rtmp://{LOCAL}:9/live/a"],
        }[self.name]

    def faults(self):
        return [*sources.WHIP, "offers", "nonsense", "killed"]

    def publish(self, name, line, stream):
        address = f"signaller::whip-endpoint=http://{LOCAL}:{self.port}/whip/{stream}?takeover=1"
        first, rest = line.split(" ", 1)
        return Process(f"{self.name}-{name}", ["gst-launch-1.0", "-e", first, address, *rest.split()], env=elements())

    def good(self, stream="in"):
        return self.publish(stream, sources.publisher(), stream)

    def bad(self, fault, chosen):
        if fault == "nonsense":
            speak_nonsense(UDP, self.udp, chosen)
        elif fault == "offers":
            self.offer(chosen)
        else:
            self.lasts(self.publish("bad", sources.WHIP.get(fault, sources.publisher()), "in"), fault)

    def offer(self, chosen):
        """Real clients' offers, with octets that are others."""
        offers = sorted((ROOT / "crates/sfu-engine/tests/offers/clients").glob("*.sdp"))
        address = f"http://{LOCAL}:{self.port}/whip/in?takeover=1"
        for _ in range(100):
            offer = bytearray(chosen.choice(offers).read_bytes().replace(b"\n", b"\r\n"))
            for _ in range(chosen.randrange(5)):
                offer[chosen.randrange(len(offer))] = chosen.randrange(256)
            request = urllib.request.Request(address, bytes(offer), {"Content-Type": "application/sdp"}, method="POST")
            try:
                urllib.request.urlopen(request, timeout=5).close()
            except urllib.error.HTTPError as error:
                if error.code >= 500 and error.code != 503:
                    raise RuntimeError(f"an offer was answered {error.code}: {bytes(offer)!r}") from error
            except OSError as error:
                raise RuntimeError(f"an offer was not answered: {error}") from error


ENTRIES = {
    "rtmp-in": Ffmpeg,
    "srt-in": Ffmpeg,
    "playout": Files,
    "rtsp-in": Camera,
    "webcam-agent": Camera,
    "ndi-to-webrtc": Ndi,
    "sfu": Whip,
    "whip-to-hls": Whip,
    "record": Whip,
    "re-encode": Whip,
    "studio": Whip,
}
