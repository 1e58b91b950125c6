# SPDX-License-Identifier: MPL-2.0
"""Ours, by the same SDK: what a publisher ends and publishes again at once is heard each time."""

import asyncio

import pytest
from livekit import rtc
from utils import assert_eventually, connect_room, unique_room_name

RATE = 48000


async def tone(source):
    while True:
        await source.capture_frame(rtc.AudioFrame.create(RATE, 1, RATE // 100))


@pytest.mark.parametrize("gap", [0, 0.05, 0.1, 0.3])
async def test_published_again_at_once(gap):
    room = unique_room_name("again")
    publisher, subscriber = await connect_room("publisher", room), await connect_room("subscriber", room)
    heard, tasks = {}, []

    async def count(track, sid):
        async for _ in rtc.AudioStream(track):
            heard[sid] = heard.get(sid, 0) + 1

    @subscriber.on("track_subscribed")
    def subscribed(track, publication, _participant):
        tasks.append(asyncio.ensure_future(count(track, publication.sid)))

    source = rtc.AudioSource(RATE, 1)
    tasks.append(asyncio.ensure_future(tone(source)))
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
    for n in range(3):
        track = rtc.LocalAudioTrack.create_audio_track(f"tone {n}", source)
        sid = (await publisher.local_participant.publish_track(track, options)).sid
        await assert_eventually(lambda: heard.get(sid, 0) > 10, message=f"publication {n} is not heard")
        await publisher.local_participant.unpublish_track(sid)
        await asyncio.sleep(gap)
    for task in tasks:
        task.cancel()
    await asyncio.gather(publisher.disconnect(), subscriber.disconnect())
