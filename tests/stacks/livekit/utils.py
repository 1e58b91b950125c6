# SPDX-License-Identifier: MPL-2.0
"""What the tests of LiveKit's Python SDK import by this name. They come in its source package, which leaves their `utils` out:
this one has the same functions, for a shared machine that is slow at times."""

import asyncio
import os
import uuid

import pytest
from livekit import api, rtc

PATIENCE = 20.0
VARIABLES = ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")


def skip_if_no_credentials():
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    return pytest.mark.skipif(bool(missing), reason=f"not set: {missing}")


def unique_room_name(base):
    return f"{base}-{uuid.uuid4().hex[:10]}"


def create_token(identity, room_name):
    token = api.AccessToken().with_identity(identity).with_name(identity)
    return token.with_grants(api.VideoGrants(room=room_name, room_join=True)).to_jwt()


async def connect_room(identity, room_name, *, room=None, options=None):
    room = room or rtc.Room()
    more = {} if options is None else {"options": options}
    await room.connect(os.environ["LIVEKIT_URL"], create_token(identity, room_name), **more)
    return room


async def assert_eventually(condition, timeout=PATIENCE, interval=0.1, message="never came to be"):
    """What `condition` gives as soon as that is true. The time that a test gives is lengthened, not shortened."""
    loop = asyncio.get_running_loop()
    end = loop.time() + max(timeout, PATIENCE)
    while not (result := condition()):
        assert loop.time() < end, message
        await asyncio.sleep(interval)
    return result


async def wait_until(predicate, *, timeout=PATIENCE, interval=0.1, message="never came to be"):
    await assert_eventually(predicate, timeout, interval, message)


async def ensure_rooms_all_connected(rooms, *, timeout=PATIENCE):
    connected = rtc.ConnectionState.CONN_CONNECTED
    await wait_until(lambda: all(room.connection_state == connected for room in rooms), timeout=timeout, message="not all are connected")


async def ensure_participants_visible(observer, identities, *, timeout=PATIENCE):
    def all_seen():
        return set(identities) <= {one.identity for one in observer.remote_participants.values()}

    await wait_until(all_seen, timeout=timeout, message=f"not all of {identities} are seen")


async def ensure_track_subscribed(room, track_sid, *, timeout=PATIENCE):
    """The publication of that track, once `room` gets it."""

    def found():
        all_of_it = (one.track_publications.get(track_sid) for one in room.remote_participants.values())
        return next((one for one in all_of_it if one and one.subscribed and one.track), None)

    return await assert_eventually(found, timeout, message=f"{track_sid} is not subscribed to")


def expect_room_event(room, event, predicate=None):
    """A future of the arguments of the next such event, begun at once."""
    future = asyncio.get_running_loop().create_future()

    def came(*arguments):
        if not future.done() and (predicate is None or predicate(*arguments)):
            future.set_result(arguments)
            room.off(event, came)

    room.on(event, came)
    return future


async def await_event(future, timeout=PATIENCE):
    try:
        await asyncio.wait_for(future, max(timeout, PATIENCE))
    except asyncio.TimeoutError:
        raise AssertionError("the event never came") from None


async def publish_dummy_video(source, stop_event, *, width=320, height=180, fps=15):
    """Pictures of one colour, each of another one than the one before."""
    count = 0
    while not stop_event.is_set():
        pixel = bytes((255, count % 256, (count * 3) % 256, (count * 7) % 256))
        source.capture_frame(rtc.VideoFrame(width, height, rtc.VideoBufferType.ARGB, pixel * (width * height)))
        count += 1
        await asyncio.sleep(1 / fps)
