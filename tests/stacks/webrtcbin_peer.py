#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""GStreamer's webrtcbin publishes a picture and a tone, or gives what it plays to two ports as plain RTP.

usage: webrtcbin_peer.py publish|play URL VIDEO-PORT AUDIO-PORT BUNDLE-POLICY
It runs until its stdin ends.
"""

import sys
import threading
import urllib.error
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

CAPS = "application/x-rtp,media={},encoding-name={},payload={},clock-rate={}"
VIDEO = CAPS.format("video", "H264", 96, 90000)
VIDEO += ",rtcp-fb-nack=true,rtcp-fb-nack-pli=true"
PLAYED = VIDEO + ",packetization-mode=(string)1,profile-level-id=(string)42e01f"
AUDIO = CAPS.format("audio", "OPUS", 97, 48000) + ",encoding-params=(string)2"
PUBLISH = f"""
  videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=30/1
  ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=60 bitrate=400 ! video/x-h264,profile=baseline
  ! rtph264pay config-interval=-1 aggregate-mode=zero-latency mtu=1200 ! {VIDEO} ! webrtc.
  audiotestsrc is-live=true ! audioconvert ! audioresample ! opusenc ! rtpopuspay ! {AUDIO} ! webrtc.
"""

Gst.init(None)
loop = GLib.MainLoop()


def negotiate(url, offer):
    """Sends an offer and returns the answer."""
    headers = {"Content-Type": "application/sdp"}
    request = urllib.request.Request(url, offer.encode(), headers, method="POST")
    try:
        with urllib.request.urlopen(request) as response:
            return response.read().decode()
    except urllib.error.HTTPError as refused:
        sys.exit(f"{refused.code} {refused.read().decode()}")


def offer(webrtc, url):
    """Makes an offer, and sends it when its candidates are there."""

    def gathered(*_):
        if webrtc.get_property("ice-gathering-state") != GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            return
        text = webrtc.get_property("local-description").sdp.as_text()
        print(text, file=sys.stderr)
        _, answer = GstSdp.SDPMessage.new_from_text(negotiate(url, text))
        kind = GstWebRTC.WebRTCSDPType.ANSWER
        description = GstWebRTC.WebRTCSessionDescription.new(kind, answer)
        webrtc.emit("set-remote-description", description, Gst.Promise.new())

    def made(promise, *_):
        reply = promise.get_reply()
        description = reply.get_value("offer")
        webrtc.emit("set-local-description", description, Gst.Promise.new())

    webrtc.connect("notify::ice-gathering-state", gathered)
    webrtc.emit("create-offer", None, Gst.Promise.new_with_change_func(made))


def give(_, pad, pipeline, ports):
    """Gives what comes out of a pad to a port."""
    if pad.direction != Gst.PadDirection.SRC:
        return
    kind = pad.get_current_caps().get_structure(0).get_string("media")
    sink = Gst.ElementFactory.make("udpsink")
    for name, value in {"host": "127.0.0.1", "port": int(ports[kind]), "sync": False, "async": False}.items():
        sink.set_property(name, value)
    pipeline.add(sink)
    sink.sync_state_with_parent()
    pad.link(sink.get_static_pad("sink"))


def main(what, url, video, audio, policy):
    bin_ = f"webrtcbin name=webrtc bundle-policy={policy}"
    pipeline = Gst.parse_launch(bin_ + (PUBLISH if what == "publish" else ""))
    if what != "publish":
        # Else it is no pipeline.
        bin_, pipeline = pipeline, Gst.Pipeline.new(None)
        pipeline.add(bin_)
    webrtc = pipeline.get_by_name("webrtc")
    if what == "publish":
        direction = GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY
        for n in range(2):
            webrtc.emit("get-transceiver", n).set_property("direction", direction)
        webrtc.emit("get-transceiver", 0).set_property("do-nack", True)
    else:
        direction = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
        for caps in (PLAYED, AUDIO):
            transceiver = webrtc.emit("add-transceiver", direction, Gst.Caps.from_string(caps))
            transceiver.set_property("do-nack", caps == PLAYED)
        webrtc.connect("pad-added", give, pipeline, {"video": video, "audio": audio})
    webrtc.connect("on-negotiation-needed", offer, url)
    pipeline.set_state(Gst.State.PLAYING)
    threading.Thread(target=lambda: (sys.stdin.read(), loop.quit()), daemon=True).start()
    loop.run()
    pipeline.set_state(Gst.State.NULL)


main(*sys.argv[1:])
