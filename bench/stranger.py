#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""A viewer whose address can't be sent to: asks for a session, and checks its path from UDP port 0, four times a second.

usage: stranger.py WHEP-URL UDP-ADDRESS UDP-PORT   (as root)
"""

import hashlib
import hmac
import re
import socket
import struct
import sys
import time
import urllib.request
import zlib

URL, HOST, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
UFRAG, PASSWORD = "strg", "stranger" * 4
OFFER = f"""v=0
o=- 1 1 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
m=video 9 UDP/TLS/RTP/SAVPF 102
c=IN IP4 0.0.0.0
a=ice-ufrag:{UFRAG}
a=ice-pwd:{PASSWORD}
a=fingerprint:sha-256 {":".join(["AB"] * 32)}
a=setup:actpass
a=rtcp-mux
a=rtcp-rsize
a=mid:0
a=recvonly
a=rtpmap:102 H264/90000
a=rtcp-fb:102 nack
a=rtcp-fb:102 nack pli
a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f
""".replace("\n", "\r\n")


def ask():
    """The server's ICE credentials."""
    request = urllib.request.Request(URL, OFFER.encode(), {"Content-Type": "application/sdp"})
    with urllib.request.urlopen(request, timeout=5) as response:
        answer = response.read().decode()
    return re.search(r"ice-ufrag:(\S+)", answer)[1], re.search(r"ice-pwd:(\S+)", answer)[1]


def attribute(kind, value):
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def check(ufrag, password, number):
    """A binding request (RFC 8489) that nominates (RFC 8445)."""
    body = attribute(0x0006, f"{ufrag}:{UFRAG}".encode())
    body += attribute(0x0024, struct.pack("!I", 1 << 24)) + attribute(0x802A, bytes(8)) + attribute(0x0025, b"")
    head = lambda more: struct.pack("!HHI12s", 1, len(body) + more, 0x2112A442, struct.pack("!12x")[:8] + struct.pack("!I", number))
    body += attribute(0x0008, hmac.new(password.encode(), head(24) + body, hashlib.sha1).digest())
    body += attribute(0x8028, struct.pack("!I", zlib.crc32(head(8) + body) ^ 0x5354554E))
    return head(0) + body


def main():
    ufrag, password = ask()
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    for number in range(1 << 30):
        data = check(ufrag, password, number)
        # From port 0; without a checksum.
        raw.sendto(struct.pack("!HHHH", 0, PORT, 8 + len(data), 0) + data, (HOST, 0))
        time.sleep(0.25)


main()
