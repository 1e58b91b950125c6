#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""An RTSP server with a test picture and a tone, or what a line says, at rtsp://127.0.0.1:PORT/live: tests/rtsp_server.py PORT [LINE]"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

MEDIA = """( videotestsrc is-live=true ! video/x-raw,format=I420,width=640,height=360,framerate=30/1
  ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=30 bitrate=800 ! rtph264pay name=pay0 pt=96
  audiotestsrc is-live=true ! audioconvert ! avenc_aac ! rtpmp4gpay name=pay1 pt=97 )"""

Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_shared(True)
factory.set_launch(sys.argv[2] if len(sys.argv) > 2 else MEDIA)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
GLib.MainLoop().run()
