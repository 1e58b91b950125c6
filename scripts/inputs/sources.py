# SPDX-License-Identifier: MPL-2.0
"""Who sends what, by name: of FFmpeg, of an RTSP camera, of an NDI sender and of a WHIP publisher."""

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
FFMPEG = {
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
    "no keyframe but the first": ("flv mpegts", made(video=X264 + " -x264-params intra-refresh=1")),
    "a keyframe each ten seconds": ("flv mpegts", made(video=X264.replace("-g 30", "-g 300"))),
    "a picture a second": ("flv mpegts", made(more="-r 1")),
    "pictures now and then": ("flv mpegts", made(more="-vf select='lt(mod(n,40),9)' -vsync vfr")),
    "eight slices, delimiters": ("flv mpegts", made(video=X264 + " -x264-params slices=8:aud=1")),
    "filler": ("flv mpegts", made(video=X264 + " -b:v 900k -maxrate 900k -bufsize 900k -x264-params nal-hrd=cbr:force-cfr=1")),
    "4:2:2": ("flv mpegts", made(video="-c:v libx264 -preset ultrafast -g 30 -pix_fmt yuv422p")),
    "7.1, 96 kHz": ("flv mpegts", made(sound="-c:a aac -ac 8 -ar 96000")),
    "time of many bits": ("flv mpegts", made(more="-output_ts_offset 17000")),
    "time about to wrap": ("flv", made(more="-output_ts_offset 4294965")),
    "time that wraps": ("mpegts", made(more="-output_ts_offset 95442")),
    "data beside": ("mpegts", ["-f", "data", "-i", __file__, *made(more="-map 1 -map 2 -map 0 -c:d copy")[:-1]]),
    "two languages": ("mpegts", made(more="-map 0 -map 1 -map 1 -metadata:s:a:0 language=eng -metadata:s:a:1 language=deu")),
    "LATM": ("mpegts", made(more="-mpegts_flags latm")),
    "E-AC-3": ("mpegts", made(sound="-c:a eac3")),
    "DTS": ("mpegts", made(sound="-c:a dca -strict -2")),
    "SMPTE 302M": ("mpegts", made(sound="-c:a s302m -ac 2 -strict -2")),
    "MPEG-4 part 2": ("mpegts", made(video="-c:v mpeg4")),
    "JPEG 2000": ("mpegts", made(video="-c:v jpeg2000")),
    "tables seldom": ("mpegts", made(more="-pat_period 9 -sdt_period 9")),
    "a constant rate": ("mpegts", made(more="-muxrate 4M")),
}

PICTURES = "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=180,framerate=30/1"
TONE = "audiotestsrc is-live=true ! audioconvert"
H264 = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=30 bitrate=300"
# An octet in so many is another one.
BREAKS = "breakmydata skip=0 set-to=-1 probability={}"


def another_size(caps):
    """A second of one size, then another one."""
    first, then = caps.format(320, 180), caps.format(640, 360)
    return f"videotestsrc is-live=true num-buffers=30 ! {first} ! concat name=sizes videotestsrc is-live=true ! {then} ! sizes. sizes."


def camera(video=f"{H264} ! rtph264pay", sound="avenc_aac ! rtpmp4gpay", pictures=PICTURES, tone=TONE):
    """The line of an RTSP camera."""
    parts = []
    if video:
        parts.append(f"{pictures} ! {video} name=pay{len(parts)} pt={96 + len(parts)}")
    if sound:
        parts.append(f"{tone} ! {sound} name=pay{len(parts)} pt={96 + len(parts)}")
    return f"( {' '.join(parts)} )"


CAMERAS = {
    "sound alone": camera(video=""),
    "pictures alone": camera(sound=""),
    "B-frames": camera(video="x264enc bframes=3 b-adapt=false speed-preset=ultrafast key-int-max=60 ! rtph264pay"),
    "4:4:4": camera(video=f"videoconvert ! video/x-raw,format=Y444 ! {H264} ! rtph264pay"),
    "MJPEG": camera(video="jpegenc ! rtpjpegpay"),
    "HEVC": camera(video="x265enc tune=zerolatency speed-preset=ultrafast log-level=none ! rtph265pay"),
    "VP8": camera(video="vp8enc deadline=1 ! rtpvp8pay"),
    "MPEG-4": camera(video="avenc_mpeg4 ! rtpmp4vpay"),
    "PCMU": camera(sound="audioresample ! audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay"),
    "G.726": camera(sound="audioresample ! audio/x-raw,rate=8000,channels=1 ! avenc_g726 bitrate=32000 ! rtpg726pay"),
    "raw sound": camera(sound="audio/x-raw,format=S16BE,rate=48000,channels=2 ! rtpL16pay"),
    "Opus": camera(sound="opusenc ! rtpopuspay"),
    "no parameter sets": camera(video=f"{H264} ! video/x-h264,stream-format=avc ! rtph264pay config-interval=0"),
    "broken pictures": camera(video=f"{H264} ! {BREAKS.format(0.0005)} ! rtph264pay"),
    "very broken pictures": camera(video=f"{H264} ! {BREAKS.format(0.02)} ! rtph264pay"),
    "broken packets": camera(video=f"{H264} ! rtph264pay ! {BREAKS.format(0.0005)} ! identity"),
    "lost pictures": camera(video=f"{H264} ! identity drop-probability=0.3 ! rtph264pay"),
    "a tiny picture": camera(pictures=PICTURES.replace("320", "18").replace("180", "2")),
    "time ahead": camera(pictures=f"{PICTURES} ! identity ts-offset=60000000000"),
    "five pictures": camera(pictures="videotestsrc num-buffers=5 ! video/x-raw,format=I420,width=320,height=180,framerate=30/1"),
    # roleoroleo/yi-hack-Allwinner-v2 1153: at night
    "another size": camera(pictures=another_size("video/x-raw,format=I420,framerate=30/1,width={},height={}")),
}

# What somebody who is no RTSP server answers to everything.
NO_CAMERAS = {
    "silence": b"",
    "random octets": None,
    "a web server": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "401 without an end": b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\nWWW-Authenticate: Digest realm=\"x\", nonce=\"y\"\r\n\r\n",
    "503": b"RTSP/1.0 503 Service Unavailable\r\nCSeq: 1\r\n\r\n",
    "a header without end": b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nX: " + b"x" * 100_000,
    "a huge length": b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 4000000000\r\n\r\n",
}

GOOD_NDI = ["--width", "320", "--height", "180"]
NDI = {
    "sound missing": [*GOOD_NDI, "--no-audio"],
    "16 channels": [*GOOD_NDI, "--channels", "16"],
    "3 channels": [*GOOD_NDI, "--channels", "3"],
    "a channel": [*GOOD_NDI, "--channels", "1"],
    "interlaced": [*GOOD_NDI, "--interlaced"],
    "2 pictures a second": [*GOOD_NDI, "--fps", "2"],
    "59.94 pictures a second": [*GOOD_NDI, "--fps", "60000/1001"],
    "a tiny picture": ["--width", "32", "--height", "16"],
    "an odd height": ["--width", "320", "--height", "181"],
    "a large picture": ["--width", "3840", "--height", "2160", "--fps", "5"],
    "another size": ["--width", "640", "--height", "480"],
    # teltek/gst-plugin-ndi 63 and 79, DistroAV/DistroAV 564
    "timecode of zero": [*GOOD_NDI, "--timecode", "0"],
    "timecode that is made": [*GOOD_NDI, "--timecode", "made"],
    "timecode that steps": [*GOOD_NDI, "--timecode", "steps"],
    "an age of a minute": [*GOOD_NDI, "--age", "60000"],
    # DistroAV/DistroAV 674, 1312 and 723, 1928 of ChurchApps/FreeShow
    "sound alone": [*GOOD_NDI, "--no-video"],
    "4 channels": [*GOOD_NDI, "--channels", "4"],
    "10 channels": [*GOOD_NDI, "--channels", "10"],
    "44.1 kHz": [*GOOD_NDI, "--rate", "44100"],
    "sizes that change": [*GOOD_NDI, "--then", "640x360"],
    "metadata": [*GOOD_NDI, "--metadata"],
    "an alpha channel": [*GOOD_NDI, "--format", "BGRA"],
}


def publisher(video="whip.video_0", sound="whip.audio_0", pictures=PICTURES, tone=TONE, caps="video/x-h264"):
    """The line of a WHIP publisher but for its element's address."""
    parts = [f"whipclientsink name=whip stun-server=NULL congestion-control=disabled video-caps={caps}"]
    if video:
        parts.append(f"{pictures} ! {video}")
    if sound:
        parts.append(f"{tone} ! {sound}")
    return " ".join(parts)


def encoded(more="identity", encoder=H264):
    return f"{encoder} ! h264parse config-interval=-1 ! video/x-h264,stream-format=byte-stream,alignment=au ! {more} ! whip.video_0"


WHIP = {
    "sound alone": publisher(video=""),
    "pictures alone": publisher(sound=""),
    "VP8": publisher(caps="video/x-vp8"),
    "VP9": publisher(caps="video/x-vp9"),
    "AV1": publisher(caps="video/x-av1"),
    "HEVC": publisher(caps="video/x-h265"),
    "B-frames": publisher(video=encoded(encoder="x264enc bframes=3 b-adapt=false speed-preset=ultrafast key-int-max=60")),
    "4:4:4": publisher(video="videoconvert ! video/x-raw,format=Y444 ! " + encoded()),
    "broken pictures": publisher(video=encoded(BREAKS.format(0.0005))),
    "very broken pictures": publisher(video=encoded(BREAKS.format(0.02))),
    "broken sound": publisher(sound=f"opusenc ! {BREAKS.format(0.02)} ! whip.audio_0"),
    "lost pictures": publisher(video=encoded("identity drop-probability=0.3")),
    "one keyframe": publisher(video=encoded(encoder=H264.replace("key-int-max=30", "key-int-max=100000"))),
    "a tiny picture": publisher(pictures=PICTURES.replace("320", "18").replace("180", "2")),
    "a large picture": publisher(pictures="videotestsrc is-live=true ! video/x-raw,format=I420,width=3840,height=2160,framerate=2/1"),
    "five pictures": publisher(pictures=PICTURES.replace("is-live=true", "is-live=true num-buffers=5")),
    "time ahead": publisher(pictures=f"{PICTURES} ! identity ts-offset=60000000000"),
    # obsproject/obs-studio 9614: the first packets, and with them the only keyframe for long, are missing
    "the first pictures missing": publisher(video=encoded("netsim drop-packets=40", H264.replace("key-int-max=30", "key-int-max=100000"))),
    # ossrs/ffmpeg-webrtc 1
    "slices": publisher(video=encoded(encoder=f"{H264} sliced-threads=true threads=4")),
    "no deblocking, CABAC and 8x8": publisher(video=encoded(encoder=f"{H264} ! video/x-h264,profile=high")),
    # ossrs/srs 4697: who is muted sends nothing
    "sound that stops": publisher(tone="audiotestsrc is-live=true num-buffers=60 ! audioconvert"),
    # awslabs/amazon-kinesis-video-streams-webrtc-sdk-c 1607
    "uneven sound": publisher(tone="audiotestsrc is-live=true samplesperbuffer=953 ! identity sleep-time=3000 ! audioconvert"),
    "another size": publisher(pictures=another_size("video/x-raw,format=I420,framerate=30/1,width={},height={}"), video="queue ! " + encoded()),
    # bluenviron/mediamtx 2432 and 5485
    "bursts": publisher(video=encoded("queue min-threshold-time=700000000")),
    "lost bursts": publisher(video=encoded("identity drop-probability=0.05 ! errorignore")),
    "mono, 8 kHz": publisher(tone="audiotestsrc is-live=true ! audio/x-raw,rate=8000,channels=1 ! audioconvert ! audioresample"),
    "a picture in two seconds": publisher(pictures=PICTURES.replace("30/1", "1/2")),
}
