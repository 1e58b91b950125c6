#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""An NDI sender for tests, on NDI's own runtime through the `ndi-python` wheel.

It shares no code with the receiver under test. It sends a moving UYVY picture and a 48 kHz stereo
tone, both with NDI timecode, and prints the single line `ready` once the first picture is out.

The top of the picture carries the time-code strip: two rows of 32 cells, each cell W/32 wide and
H/16 high. Row 0 holds the low 32 bits of the Unix time in milliseconds, most significant bit left,
white = 1; row 1 holds their complement, so that a reader can tell a strip from anything else.

Run it where `setup.sh` installed the wheels:

    PYTHONPATH=.cache/ndi python3 tests/ndi/send.py --name "CAM 1" --width 640 --height 360 --fps 30
"""

import argparse
import signal
import sys
import time
from fractions import Fraction

import numpy as np

try:
    import NDIlib as ndi
except ImportError as err:
    sys.exit(
        f"send.py: cannot load NDIlib ({err}). Run tests/ndi/setup.sh, put the folder it names on "
        "PYTHONPATH, and install libavahi-client3."
    )

RATE = 48_000
# Seconds after which the next number of --channels is sent.
CHANNELS_PERIOD = 5
BLACK, WHITE = 16, 235
CELLS = 32


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="test", help="source name, shown as 'HOSTNAME (NAME)'")
    parser.add_argument("--groups", default=None, help="comma-separated NDI groups")
    parser.add_argument("--width", type=int, default=640, help="picture width in pixels, a multiple of 32")
    parser.add_argument("--height", type=int, default=360, help="picture height in pixels, at least 16")
    parser.add_argument("--fps", type=Fraction, default=Fraction(30), help="pictures per second, e.g. 30 or 30000/1001")
    parser.add_argument("--interlaced", action="store_true", help="declare the picture as two interleaved fields")
    parser.add_argument("--tone", type=float, default=1000.0, help="tone in Hz, 0 for silence")
    parser.add_argument("--level", type=float, default=0.1, help="amplitude of the tone, 0 to 1")
    parser.add_argument("--no-audio", action="store_true", help="send no audio at all")
    parser.add_argument(
        "--channels",
        type=lambda text: [int(n) for n in text.split(",")],
        default=[2],
        help="audio channels; of several numbers, as 2,16,3, each for five seconds and the last for good",
    )
    parser.add_argument(
        "--age", type=int, default=0, help="milliseconds that have passed since capture when a picture is sent"
    )
    parser.add_argument("--duration", type=float, default=0.0, help="seconds to run, 0 for ever")
    args = parser.parse_args()
    if args.width % CELLS or args.width <= 0 or args.height < 16 or args.fps <= 0:
        parser.error("--width must be a positive multiple of 32, --height at least 16, --fps above 0")
    return args


class Picture:
    """A UYVY picture: a gradient that scrolls to the left under the time-code strip."""

    def __init__(self, width, height):
        self.width, self.row_height = width, height // 16
        self.bits = np.arange(CELLS - 1, -1, -1, dtype=np.uint32)
        # Twice as wide as the picture and periodic, so that scrolling is one strided copy.
        x = np.arange(2 * width) * (2 * np.pi / width)
        y = np.arange(height)[:, None] * (np.pi / height)
        self.scroll = np.empty((height, 4 * width), dtype=np.uint8)
        self.scroll[:, 0::4] = 128 + 60 * np.sin(x[0::2] + y)
        self.scroll[:, 2::4] = 128 + 60 * np.cos(x[0::2] - y)
        self.scroll[:, 1::2] = 126 + 80 * np.sin(x + 3 * y)
        self.pixels = np.empty((height, 2 * width), dtype=np.uint8)

    def draw(self, number, unix_ms):
        # Steps of an even number of pixels keep the chroma pairs together.
        start = 2 * ((4 * number) % self.width)
        np.copyto(self.pixels, self.scroll[:, start : start + 2 * self.width])
        ones = ((unix_ms & 0xFFFF_FFFF) >> self.bits) & 1
        for row, cells in enumerate((ones, 1 - ones)):
            luma = np.repeat(np.where(cells, WHITE, BLACK).astype(np.uint8), self.width // CELLS)
            strip = self.pixels[row * self.row_height : (row + 1) * self.row_height]
            strip[:, 0::2] = 128
            strip[:, 1::2] = luma
        return self.pixels


class Tone:
    """A stereo sine whose phase runs on across the pieces."""

    def __init__(self, frequency, level):
        self.step, self.level, self.sent = 2 * np.pi * frequency / RATE, level, 0

    def up_to(self, sample):
        phase = np.arange(self.sent, sample, dtype=np.float64) * self.step
        self.sent = sample
        wave = (self.level * np.sin(phase)).astype(np.float32)
        return np.ascontiguousarray(np.stack((wave, wave)))


def video_frame(args):
    frame = ndi.VideoFrameV2()
    frame.FourCC = ndi.FOURCC_VIDEO_TYPE_UYVY
    frame.xres, frame.yres = args.width, args.height
    frame.line_stride_in_bytes = 2 * args.width
    frame.frame_rate_N, frame.frame_rate_D = args.fps.numerator, args.fps.denominator
    frame.frame_format_type = (
        ndi.FRAME_FORMAT_TYPE_INTERLEAVED if args.interlaced else ndi.FRAME_FORMAT_TYPE_PROGRESSIVE
    )
    return frame


def send_audio(sender, tone, channels, sample, timecode):
    frame = ndi.AudioFrameV3()
    # The tone is on the first two channels alone.
    samples = tone.up_to(sample)
    silence = np.zeros((max(channels - 2, 0), samples.shape[1]), np.float32)
    samples = np.ascontiguousarray(np.concatenate((samples[:channels], silence)))
    frame.sample_rate, frame.no_channels, frame.no_samples = RATE, channels, samples.shape[1]
    frame.channel_stride_in_bytes = 4 * samples.shape[1]
    frame.timecode, frame.data = timecode, samples
    ndi.send_send_audio_v3(sender, frame)


def run(args, sender):
    picture, tone = Picture(args.width, args.height), Tone(args.tone, args.level)
    frame = video_frame(args)
    age = args.age * 1_000_000
    start, start_unix = time.monotonic(), time.time_ns() - age
    number = 0
    while not args.duration or number / args.fps < args.duration:
        due = start + float(number / args.fps)
        delay = due - time.monotonic()
        if delay > 0:
            time.sleep(delay)
        # Timecode counts units of 100 ns and advances by exactly one picture.
        timecode = start_unix // 100 + int(number * 10_000_000 / args.fps)
        # The binding reads the picture's width and height from the array's shape.
        frame.data = picture.draw(number, (time.time_ns() - age) // 1_000_000).reshape(args.height, args.width, 2)
        frame.timecode = timecode
        ndi.send_send_video_v2(sender, frame)
        if not args.no_audio:
            period = int(number / args.fps / CHANNELS_PERIOD)
            channels = args.channels[min(period, len(args.channels) - 1)]
            send_audio(sender, tone, channels, int((number + 1) * RATE / args.fps), timecode)
        if number == 0:
            print("ready", flush=True)
        number += 1


def main():
    args = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if not ndi.initialize():
        sys.exit("send.py: this CPU cannot run the NDI runtime (it needs SSSE3)")
    settings = ndi.SendCreate(args.name, args.groups, False, False)
    sender = ndi.send_create(settings)
    if sender is None:
        sys.exit(f"send.py: the NDI runtime refused to create the source {args.name!r}")
    try:
        run(args, sender)
    finally:
        ndi.send_destroy(sender)
        ndi.destroy()


if __name__ == "__main__":
    main()
