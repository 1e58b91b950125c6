# SPDX-License-Identifier: MPL-2.0
"""aiortc publishes a picture and a tone, or plays and counts what it decodes.

usage: aiortc_peer.py publish|play URL
It runs until its stdin ends. What it plays is counted in a line "FRAMES SOUNDS" each half second.
"""

import asyncio
import fractions
import sys
import urllib.request

import av
from aiortc import (
    AudioStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
    VideoStreamTrack,
)

SIZE = (320, 180)


class Picture(VideoStreamTrack):
    """Grey that moves."""

    async def recv(self):
        pts, base = await self.next_timestamp()
        frame = av.VideoFrame(*SIZE, "yuv420p")
        for number, plane in enumerate(frame.planes):
            level = pts // 3000 * 5 % 200 + 16 if number == 0 else 128
            plane.update(bytes([level]) * plane.buffer_size)
        frame.pts, frame.time_base = pts, fractions.Fraction(base)
        return frame


def negotiate(url, offer):
    """Sends an offer and returns the answer."""
    headers = {"Content-Type": "application/sdp"}
    request = urllib.request.Request(url, offer.encode(), headers, method="POST")
    with urllib.request.urlopen(request) as response:
        return response.read().decode()


async def count(track, counts):
    while True:
        await track.recv()
        counts[track.kind] += 1


async def main(what, url):
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.on("connectionstatechange", lambda: print(pc.connectionState, file=sys.stderr))
    counts = {"video": 0, "audio": 0}
    if what == "publish":
        pc.addTransceiver(Picture(), direction="sendonly")
        pc.addTransceiver(AudioStreamTrack(), direction="sendonly")
    else:
        pc.on("track", lambda track: asyncio.ensure_future(count(track, counts)))
        pc.addTransceiver("video", direction="recvonly")
        pc.addTransceiver("audio", direction="recvonly")
    await pc.setLocalDescription(await pc.createOffer())
    loop = asyncio.get_running_loop()
    answer = await loop.run_in_executor(None, negotiate, url, pc.localDescription.sdp)
    await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    ended = loop.run_in_executor(None, sys.stdin.read)
    while not ended.done():
        print(counts["video"], counts["audio"], flush=True)
        await asyncio.wait([ended], timeout=0.5)
    await pc.close()


asyncio.run(main(*sys.argv[1:]))
