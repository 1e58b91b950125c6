# SPDX-License-Identifier: MPL-2.0
"""RTSP cameras as bug reports have them: a good one, and somebody between it and its caller who changes what it says."""

import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import Callable

LOCAL = "127.0.0.1"
REFUSED = "RTSP/1.0 {}\r\nCSeq: {}\r\n\r\n"


@dataclass
class Changes:
    """What is another one: the description, packets (by channel; none or several may become of one), and requests that are refused."""

    description: Callable = lambda text: text
    packets: Callable = lambda number, channel, packet: [(channel, packet)]
    header: Callable = lambda text: text
    refused: dict = field(default_factory=dict)
    sound: str = ""


def replaced(pattern, by):
    """A description in which one thing is another."""
    return Changes(description=lambda text: re.sub(pattern, by, text, flags=re.M))


def without_pps(number, channel, packet):
    is_pps = channel == 0 and len(packet) > 12 and packet[12] & 0x1F == 8
    return [] if is_pps else [(channel, packet)]


def with_ssrc(number, channel, packet):
    """All tracks have one SSRC."""
    at = 8 if channel % 2 == 0 else 4
    return [(channel, packet[:at] + b"\x11\x22\x33\x44" + packet[at + 4 :])]


def shifted(ticks):
    """From the sixtieth packet on timestamps are others."""

    def change(number, channel, packet):
        if channel % 2 or number < 60:
            return [(channel, packet)]
        (time,) = struct.unpack_from("!I", packet, 4)
        return [(channel, packet[:4] + struct.pack("!I", (ticks if ticks == 0 else time + ticks) % 2**32) + packet[8:])]

    return change


def reordered():
    """Each second one comes behind the next one."""
    held = []

    def change(number, channel, packet):
        if number % 2 and not held:
            held.append((channel, packet))
            return []
        now = [(channel, packet), *held]
        held.clear()
        return now

    return change


METADATA_PATH = "stream=9"
METADATA = "m=application 0 RTP/AVP 107\r\n{}a=control:" + METADATA_PATH + "\r\na=recvonly\r\n"

CHANGED = {
    # bluenviron/mediamtx 95, 2708 and 2555, 3669, 1716, 832
    "a range of a clock": replaced("^a=range:.*$", "a=range:clock=20200908T132728Z-20200909T030844Z;clock=20200909T031019Z-20200909T103133Z\r"),
    "a session of a negative number": replaced("^o=.*$", "o=- -8959200248001175080 1698143674.978737 IN IP4 0.0.0.0\r"),
    "fmtp of another format": replaced("^a=fmtp:97", "a=fmtp:104"),
    "MP4A-LATM": Changes(sound="avenc_aac ! rtpmp4apay"),
    "a track without rtpmap": Changes(description=lambda text: text + METADATA.format("")),
    # AlexxIT/go2rtc 1663; and one that is described and not there
    "a track of metadata": Changes(description=lambda text: text + METADATA.format("a=rtpmap:107 vnd.onvif.metadata/90000\r\n")),
    "a track that is not there": Changes(description=lambda text: text + METADATA.format("").replace(METADATA_PATH, "stream=8")),
    # kerberos-io/agent 105
    "no parameter sets in the description": replaced("sprop-parameter-sets=[^;\r]*", "sprop-parameter-sets="),
    # paxx12-snapmaker-u1/SnapmakerU1-Extended-Firmware 644
    "no PPS": Changes(description=lambda text: re.sub(";?sprop-parameter-sets=[^;\r]*", "", text), packets=without_pps),
    # jimm98y/SharpRealTimeStreaming 23
    "one SSRC": Changes(packets=with_ssrc, header=lambda text: re.sub("ssrc=[0-9A-Fa-f]+", "ssrc=11223344", text)),
    # WebRTSP/ReStreamer 27: what keeps the session is refused, and it is short
    "nothing that keeps the session": Changes(
        header=lambda text: re.sub("^(Session: [^;\r]*).*$", r"\1;timeout=1", text, flags=re.M),
        refused={"OPTIONS": "551 Option not supported", "GET_PARAMETER": "551 Option not supported"},
    ),
    # insight-platform/Savant 182
    "time from zero": Changes(packets=shifted(-(2**31) + 7)),
    "time that stands": Changes(packets=shifted(0)),
    # roleoroleo/yi-hack-Allwinner-v2 1153
    "another clock rate": replaced(r"^(a=rtpmap:97 [^/]*/)\d+", r"\g<1>8000"),
    "each packet twice": Changes(packets=lambda number, channel, packet: [(channel, packet)] * 2),
    "packets out of order": Changes(packets=reordered()),
    "channels that nobody asked for": Changes(packets=lambda number, channel, packet: [(channel, packet), (7, packet), (channel, b"")]),
}


class Between:
    """Listens where the camera should, and calls it for each who comes."""

    def __init__(self, port, camera, changes):
        self.camera, self.changes, self.open = camera, changes, []
        self.listener = socket.create_server((LOCAL, port))
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            try:
                caller, _ = self.listener.accept()
                camera = socket.create_connection((LOCAL, self.camera), timeout=5)
            except OSError:
                return
            camera.settimeout(None)
            self.open += [caller, camera]
            threading.Thread(target=self.carry, args=(caller, self.requests(caller, camera)), daemon=True).start()
            threading.Thread(target=self.carry, args=(camera, self.answers(caller)), daemon=True).start()

    @staticmethod
    def carry(source, take):
        """Cuts what comes into messages and packets."""
        next(take)
        data = b""
        try:
            while more := source.recv(65536):
                data += more
                while (length := Between.length(data)) and len(data) >= length:
                    take.send(data[:length])
                    data = data[length:]
        except OSError:
            pass

    @staticmethod
    def length(data):
        if data[:1] == b"$":
            return 4 + struct.unpack_from("!H", data, 2)[0] if len(data) >= 4 else 0
        head = data.find(b"\r\n\r\n") + 4
        body = re.search(rb"content-length: *(\d+)", data[:head], re.I) if head > 3 else None
        return (head if head > 3 else 0) + (int(body[1]) if body else 0)

    def requests(self, caller, camera):
        """By TCP alone, so that packets come through here."""
        while True:
            message = yield
            words = message.split(b" ", 1)[0].decode(errors="replace")
            number = re.search(rb"cseq: *(\d+)", message, re.I)
            refused = self.changes.refused.get(words)
            if words == "SETUP" and b"RTP/AVP/TCP" not in message:
                refused = "461 Unsupported Transport"
            if refused and number:
                caller.sendall(REFUSED.format(refused, number[1].decode()).encode())
            elif METADATA_PATH.encode() in message.split(b"\r\n", 1)[0]:
                told = re.findall(rb"^(?:cseq|session|transport):.*\r\n", message, re.I | re.M)
                caller.sendall(b"RTSP/1.0 200 OK\r\n" + b"".join(told) + b"\r\n")
            else:
                # The camera behind would go to a time that it does not have.
                camera.sendall(re.sub(rb"^range:.*\r\n", b"", message, flags=re.I | re.M))

    def answers(self, caller):
        number = 0
        while True:
            message = yield
            if message[:1] == b"$":
                number += 1
                for channel, packet in self.changes.packets(number, message[1], message[4:]):
                    caller.sendall(struct.pack("!cBH", b"$", channel, len(packet)) + packet)
                continue
            head, body = message.split(b"\r\n\r\n", 1)
            head = self.changes.header(head.decode())
            if "application/sdp" in head:
                body = self.changes.description(body.decode()).encode()
                head = re.sub(r"(?i)content-length: *\d+", f"Content-Length: {len(body)}", head)
            caller.sendall(head.encode() + b"\r\n\r\n" + body)

    def end(self):
        for one in (self.listener, *self.open):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()
