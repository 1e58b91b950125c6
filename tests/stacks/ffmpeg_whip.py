# SPDX-License-Identifier: MPL-2.0
"""FFmpeg's own WHIP muxer, as PyAV brings it, publishes a picture and a tone.

usage: ffmpeg_whip.py URL [CERTIFICATE KEY]
It runs until its stdin ends. Without a certificate FFmpeg makes one of its own.
"""

import fractions
import select
import sys
import time

import av

SIZE, RATE = (320, 180), 30


def picture(number):
    frame = av.VideoFrame(*SIZE, "yuv420p")
    for n, plane in enumerate(frame.planes):
        level = number * 5 % 200 + 16 if n == 0 else 128
        plane.update(bytes([level]) * plane.buffer_size)
    frame.pts, frame.time_base = number, fractions.Fraction(1, RATE)
    return frame


def sound(number):
    frame = av.AudioFrame(format="s16", layout="stereo", samples=960)
    frame.planes[0].update(bytes(range(0, 240)) * 16)
    frame.sample_rate = 48000
    frame.pts, frame.time_base = number * 960, fractions.Fraction(1, 48000)
    return frame


def main(url, *certificate):
    options = dict(zip(("cert_file", "key_file"), certificate))
    with av.open(url, "w", format="whip", options=options) as out:
        video = out.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt, video.bit_rate = *SIZE, "yuv420p", 300_000
        video.codec_context.gop_size = 2 * RATE
        video.options = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline"}
        audio = out.add_stream("libopus", rate=48000, layout="stereo")
        begin, pictures, sounds = time.monotonic(), 0, 0
        while True:
            now = time.monotonic() - begin
            for packet in video.encode(picture(pictures)) if pictures / RATE <= now else ():
                out.mux(packet)
            pictures += pictures / RATE <= now
            for packet in audio.encode(sound(sounds)) if sounds * 0.02 <= now else ():
                out.mux(packet)
            sounds += sounds * 0.02 <= now
            if select.select([sys.stdin], [], [], 0.004)[0]:
                return


av.logging.set_level(av.logging.VERBOSE)
main(*sys.argv[1:])
