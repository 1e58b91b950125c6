// Takes part in a room from Chromium that may use relays alone: livekit-client as it comes from npm. Prints what its media travels by.
//
// node relayed_room.mjs --url ws://10.99.1.1:8080 --token TOKEN --single 1 [--screenshot FILE]

import { options, until, withBrowsers } from './browser.mjs';
import { openThere } from './livekit.mjs';

const wanted = options({ url: '', token: '', single: 0, screenshot: '' });

const PAGE = '<!doctype html><title>relayed</title><script src="/livekit.js"></script><p id=state></p><div id=all></div>';

/** In the page: joins and publishes. */
async function join([url, token, single]) {
  const { Room, RoomEvent } = window.LivekitClient;
  const room = new Room({ singlePeerConnection: single });
  window.room = room;
  room.on(RoomEvent.TrackSubscribed, (track) => document.getElementById('all').append(track.attach()));
  await room.connect(url, token, { rtcConfig: { iceTransportPolicy: 'relay' } });
  await room.localParticipant.setCameraEnabled(true, { resolution: { width: 320, height: 180, frameRate: 15 } });
}

/** In the page: the ways of what comes and of what leaves, once there is some of both. */
async function ways() {
  const tracks = [...window.room.remoteParticipants.values()].flatMap((one) => [...one.trackPublications.values()]);
  const reports = [
    await tracks.find((one) => one.kind === 'video')?.track?.getRTCStatsReport(),
    await window.room.localParticipant.getTrackPublication('camera').track.getRTCStatsReport(),
  ];
  const result = {};
  for (const [n, report] of reports.entries()) {
    const all = [...report?.values() ?? []];
    const stream = all.find((one) => one.type === (n === 0 ? 'inbound-rtp' : 'outbound-rtp'));
    const transport = all.find((one) => one.id === stream?.transportId);
    const pair = all.find((one) => one.id === transport?.selectedCandidatePairId);
    const local = all.find((one) => one.id === pair?.localCandidateId);
    if (!((stream?.framesDecoded ?? stream?.framesEncoded) > 30 && local)) return null;
    result[n === 0 ? 'comes' : 'leaves'] = { type: local.candidateType, url: local.url };
  }
  return result;
}

const seen = await withBrowsers({ deadline: 120000, screenshot: wanted.screenshot }, async (open) => {
  const page = await openThere(open, 'chromium_far', PAGE);
  await page.evaluate(join, [wanted.url, wanted.token, wanted.single !== 0]);
  return until(page, 'pictures both ways', ways);
});
console.log(JSON.stringify(seen));
