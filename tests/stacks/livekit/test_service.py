# SPDX-License-Identifier: MPL-2.0
"""Ours: an application with PyPI's livekit-api administers a room with people in it."""

import pytest
from livekit import api, rtc
from utils import assert_eventually, await_event, connect_room, ensure_track_subscribed, expect_room_event, unique_room_name


@pytest.fixture
async def meeting():
    """The calls of the server API, the room's name, who publishes and its publication, and who gets that."""
    name = unique_room_name("service")
    ann, ben = await connect_room("ann", name), await connect_room("ben", name)
    track = rtc.LocalAudioTrack.create_audio_track("microphone", rtc.AudioSource(48000, 1))
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
    publication = await ann.local_participant.publish_track(track, options)
    await ensure_track_subscribed(ben, publication.sid)
    async with api.LiveKitAPI() as server:
        yield server.room, name, ann, publication, ben
    for room in (ann, ben):
        if room.isconnected():
            await room.disconnect()


async def test_people_and_what_they_publish(meeting):
    calls, name, _, publication, _ = meeting
    listed = await calls.list_participants(api.ListParticipantsRequest(room=name))
    assert sorted(one.identity for one in listed.participants) == ["ann", "ben"]
    ann = await calls.get_participant(api.RoomParticipantIdentity(room=name, identity="ann"))
    assert [track.sid for track in ann.tracks] == [publication.sid]
    rooms = await calls.list_rooms(api.ListRoomsRequest(names=[name]))
    assert [room.num_participants for room in rooms.rooms] == [2]


async def test_who_is_muted_is_not_unmuted(meeting):
    calls, name, _, publication, ben = meeting
    muted = expect_room_event(ben, "track_muted")
    mute = api.MuteRoomTrackRequest(room=name, identity="ann", track_sid=publication.sid, muted=True)
    assert (await calls.mute_published_track(mute)).track.muted
    await await_event(muted)
    mute.muted = False
    with pytest.raises(api.ServerError) as refused:
        await calls.mute_published_track(mute)
    assert refused.value.code == "failed_precondition"


async def test_names_metadata_and_data(meeting):
    calls, name, ann, _, ben = meeting
    changed = [
        expect_room_event(ben, "participant_metadata_changed"),
        expect_room_event(ben, "participant_attributes_changed"),
        expect_room_event(ann, "room_metadata_changed"),
        expect_room_event(ben, "data_received"),
    ]
    update = api.UpdateParticipantRequest(room=name, identity="ann", metadata="new", name="Ann", attributes={"hand": "up"})
    await calls.update_participant(update)
    await calls.update_room_metadata(api.UpdateRoomMetadataRequest(room=name, metadata="of the room"))
    kind = api.DataPacket.Kind.RELIABLE
    data = api.SendDataRequest(room=name, data=b"hello", kind=kind, destination_identities=["ben"], topic="chat")
    await calls.send_data(data)
    for event in changed:
        await await_event(event)
    packet = changed[-1].result()[0]
    assert (packet.data, packet.topic, packet.participant) == (b"hello", "chat", None)
    seen = ben.remote_participants["ann"]
    assert (seen.metadata, seen.attributes) == ("new", {"hand": "up"})
    await assert_eventually(lambda: ben.remote_participants["ann"].name == "Ann")


async def test_who_may_not_publish_any_more_and_who_has_to_go(meeting):
    calls, name, ann, _, ben = meeting
    gone = expect_room_event(ben, "track_unpublished")
    permission = api.ParticipantPermission(can_subscribe=True, can_publish=False, can_publish_data=True)
    await calls.update_participant(api.UpdateParticipantRequest(room=name, identity="ann", permission=permission))
    await await_event(gone)
    left, ended = expect_room_event(ben, "participant_disconnected"), expect_room_event(ann, "disconnected")
    await calls.remove_participant(api.RoomParticipantIdentity(room=name, identity="ann"))
    for event in (left, ended):
        await await_event(event)
    assert ended.result()[0] == rtc.DisconnectReason.PARTICIPANT_REMOVED
    ended = expect_room_event(ben, "disconnected")
    await calls.delete_room(api.DeleteRoomRequest(room=name))
    await await_event(ended)
    assert ended.result()[0] == rtc.DisconnectReason.ROOM_DELETED
