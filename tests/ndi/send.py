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
    parser.add_argument("--timecode", choices=["clock", "0", "made", "steps"], default="clock", help="true, zero, left to the runtime, or with steps of an hour")
    parser.add_argument("--no-video", action="store_true", help="send no pictures at all")
    parser.add_argument("--rate", type=int, default=48_000, help="samples of a second")
    parser.add_argument("--then", default=None, help="WIDTHxHEIGHT of the pictures after a second")
    parser.add_argument("--format", choices=["UYVY", "BGRA"], default="UYVY", help="how pixels are written: BGRA is grey")
    parser.add_argument("--metadata", action="store_true", help="send metadata with each picture, not all of it well-formed")
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

    def __init__(self, frequency, level, rate):
        self.step, self.level, self.rate, self.sent = 2 * np.pi * frequency / rate, level, rate, 0

    def up_to(self, sample):
        phase = np.arange(self.sent, sample, dtype=np.float64) * self.step
        self.sent = sample
        wave = (self.level * np.sin(phase)).astype(np.float32)
        return np.ascontiguousarray(np.stack((wave, wave)))


def video_frame(args):
    frame = ndi.VideoFrameV2()
    frame.FourCC = getattr(ndi, f"FOURCC_VIDEO_TYPE_{args.format}")
    frame.xres, frame.yres = args.width, args.height
    frame.line_stride_in_bytes = (2 if args.format == "UYVY" else 4) * args.width
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
    frame.sample_rate, frame.no_channels, frame.no_samples = tone.rate, channels, samples.shape[1]
    frame.channel_stride_in_bytes = 4 * samples.shape[1]
    frame.timecode, frame.data = timecode, samples
    ndi.send_send_audio_v3(sender, frame)


def send_metadata(sender, number):
    frame = ndi.MetadataFrame()
    frame.data = ["<ndi_product x='1'/>", "<a", "", "x" * 20_000][number % 4]
    ndi.send_send_metadata(sender, frame)


def timecode_of(args, number, true):
    """In units of 100 ns."""
    seconds = int(number / args.fps)
    steps = [0, 3600, -3600, 7200][seconds % 4] * 10_000_000
    return {"clock": true, "0": 0, "made": ndi.SEND_TIMECODE_SYNTHESIZE, "steps": true + steps}[args.timecode]


def run(args, sender):
    picture, tone = Picture(args.width, args.height), Tone(args.tone, args.level, args.rate)
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
        timecode = timecode_of(args, number, start_unix // 100 + int(number * 10_000_000 / args.fps))
        if args.then and number == args.fps // 1:
            args.width, args.height = map(int, args.then.split("x"))
            picture, frame = Picture(args.width, args.height), video_frame(args)
        # The binding reads the picture's width and height from the array's shape.
        pixels = picture.draw(number, (time.time_ns() - age) // 1_000_000).reshape(args.height, args.width, 2)
        frame.data = pixels if args.format == "UYVY" else np.repeat(pixels[:, :, 1:], 4, axis=2)
        frame.timecode = timecode
        if not args.no_video:
            ndi.send_send_video_v2(sender, frame)
        if args.metadata:
            send_metadata(sender, number)
        if not args.no_audio:
            period = int(number / args.fps / CHANNELS_PERIOD)
            channels = args.channels[min(period, len(args.channels) - 1)]
            send_audio(sender, tone, channels, int((number + 1) * args.rate / args.fps), timecode)
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
