// Two people meet in a room, where a stream of the server is a participant, too: livekit-client as it comes from npm, in pages of
// the same browser or of two. Prints what they saw as one line of JSON.
//
// node rooms.mjs --url ws://127.0.0.1:8080 --ann TOKEN --ben TOKEN --stream cam1 --browsers chromium:firefox [--screenshot FILE]

import { options, pause, until, withBrowsers } from './browser.mjs';
import { serve } from './livekit.mjs';

const wanted = options({ url: '', ann: '', ben: '', stream: '', browsers: 'chromium:chromium', single: 0, screenshot: '' });
const setting = { deadline: 150000, screenshot: wanted.screenshot };

const PAGE = `<!doctype html><title>room</title><script src="/livekit.js"></script><p id=state></p><div id=all></div>`;

/** In the page: joins, and keeps what happens in `window.seen`. */
async function join([url, token, single]) {
  const { Room, RoomEvent } = window.LivekitClient;
  const room = new Room({ adaptiveStream: false, dynacast: true, singlePeerConnection: single });
  const seen = { events: [], data: [], speakers: [], errors: [] };
  Object.assign(window, { room, seen });
  for (const name of ['ParticipantConnected', 'ParticipantDisconnected', 'TrackSubscribed', 'TrackUnsubscribed', 'TrackMuted',
    'TrackUnmuted', 'Reconnecting', 'Reconnected', 'Disconnected', 'TrackSubscriptionFailed']) {
    room.on(RoomEvent[name], (...all) => {
      const who = all.find((one) => one?.identity)?.identity ?? '';
      const what = all.find((one) => one?.source)?.source ?? '';
      seen.events.push(`${name} ${who} ${what}`.trim());
    });
  }
  room.on(RoomEvent.TrackSubscribed, (track) => {
    const element = track.attach();
    element.muted = false;
    document.getElementById('all').append(element);
  });
  room.on(RoomEvent.DataReceived, (octets, from, kind) => {
    seen.data.push([new TextDecoder().decode(octets), from?.identity, kind]);
  });
  room.on(RoomEvent.ActiveSpeakersChanged, (all) => { for (const one of all) seen.speakers.push(one.identity); });
  await room.connect(url, token);
  return { sid: room.localParticipant.sid, name: room.name, others: [...room.remoteParticipants.values()].map((p) => p.identity) };
}

/** In the page: what has come from people, of each kind. */
async function received() {
  const result = { video: 0, audio: 0, height: 0, state: window.room.state };
  for (const participant of window.room.remoteParticipants.values()) {
    if (participant.kind !== 0) continue;
    for (const publication of participant.trackPublications.values()) {
      const report = await publication.track?.getRTCStatsReport();
      for (const one of report?.values() ?? []) {
        if (one.type !== 'inbound-rtp') continue;
        if (one.kind === 'video') {
          result.video += one.framesDecoded ?? 0;
          result.height = Math.max(result.height, one.frameHeight ?? 0);
        } else result.audio += one.totalAudioEnergy ?? 0;
      }
    }
  }
  return result;
}

/** In the page: whether somebody is seen. */
const pictures = (who) => {
  const camera = window.room.remoteParticipants.get(who)?.getTrackPublication('camera')?.track;
  return camera?.attachedElements.some((one) => one.videoWidth > 0);
};

const has = (event) => [(wantedEvent) => window.seen.events.includes(wantedEvent), event];

const seen = await withBrowsers(setting, async (open) => {
  const server = await serve(PAGE);
  try {
    const page = `http://localhost:${server.address().port}/`;
    const [first, second] = wanted.browsers.split(':');
    const single = wanted.single !== 0;
    const ann = await open(first, page);
    const ben = await open(second, page);
    const joined = { ann: await ann.evaluate(join, [wanted.url, wanted.ann, single]) };
    // What it is told of the stream, and what of that comes.
    const shown = async (name) => {
      const stream = window.room.remoteParticipants.get(name);
      const tracks = [...stream?.trackPublications.values() ?? []];
      const reports = await Promise.all(tracks.map((one) => one.track?.getRTCStatsReport()));
      const inbound = reports.flatMap((all) => [...all?.values() ?? []]).filter((one) => one.type === 'inbound-rtp');
      const frames = Math.max(0, ...inbound.map((one) => one.framesDecoded ?? 0));
      const sound = Math.max(0, ...inbound.map((one) => one.totalAudioEnergy ?? 0));
      return tracks.length === 2 && frames > 10 && sound > 0 && { kind: stream.kind, sources: tracks.map((one) => one.source).sort() };
    };
    const stream = await until(ann, 'the stream', shown, wanted.stream);
    await ann.evaluate(async () => {
      // The beeps of a fake microphone are too short to be speech.
      const context = new AudioContext();
      const tone = context.createOscillator();
      const microphone = context.createMediaStreamDestination();
      tone.connect(microphone);
      tone.start();
      await window.room.localParticipant.publishTrack(microphone.stream.getAudioTracks()[0], { source: 'microphone' });
      await window.room.localParticipant.setCameraEnabled(true);
    });
    joined.ben = await ben.evaluate(join, [wanted.url, wanted.ben, single]);
    await until(ben, "ann's pictures", pictures, 'ann');
    const begun = await ben.evaluate(received);
    await until(ann, 'ben', ...has('ParticipantConnected ben'));
    // Ben has a camera, too: the other way round.
    await ben.evaluate(() => window.room.localParticipant.enableCameraAndMicrophone());
    await until(ann, "ben's pictures", pictures, 'ben');
    await pause(3000);
    const played = { ann: await ann.evaluate(received), ben: await ben.evaluate(received) };
    // All that is sent has its layers, and the viewer chooses.
    const heightIs = async (compare) => {
      const report = await window.room.remoteParticipants.get('ann').getTrackPublication('camera').track.getRTCStatsReport();
      const heights = [...report.values()].filter((one) => one.type === 'inbound-rtp').map((one) => one.frameHeight ?? 0);
      const height = Math.max(...heights);
      return (compare === 'low' ? height > 0 && height <= 200 : height >= 360) && height;
    };
    const highest = await until(ben, 'a higher layer', heightIs, 'high', 40000);
    const choose = (quality) => window.room.remoteParticipants.get('ann').getTrackPublication('camera').setVideoQuality(quality);
    await ben.evaluate(choose, 0);
    const lowest = await until(ben, 'the lowest layer', heightIs, 'low');
    // Firefox lets no page make sound that nobody has touched.
    if (first === 'chromium') await until(ben, 'ann to be heard', () => window.seen.speakers.includes('ann'));
    await ann.evaluate(() => window.room.localParticipant.setMicrophoneEnabled(false));
    await until(ben, 'ann to be muted', ...has('TrackMuted ann microphone'));
    await ann.evaluate(() => window.room.localParticipant.setMicrophoneEnabled(true));
    await until(ben, 'ann to be heard again', ...has('TrackUnmuted ann microphone'));
    const say = async (reliable) => {
      const text = new TextEncoder().encode(reliable ? 'sure' : 'maybe');
      await window.room.localParticipant.publishData(text, { reliable });
    };
    await ann.evaluate(say, true);
    await until(ben, 'data', () => window.seen.data.some(([text]) => text === 'sure'));
    for (let n = 0; n < 40 && !await ben.evaluate(() => window.seen.data.some(([text]) => text === 'maybe')); n += 1) {
      await ann.evaluate(say, false);
      await pause(100);
    }
    await ann.evaluate(async () => { await window.room.localParticipant.sendText('a longer text', { topic: 'chat' }); });
    await ann.evaluate(() => window.room.localParticipant.setCameraEnabled(false));
    await until(ben, 'ann without a camera', ...has('TrackMuted ann camera'));
    await ann.evaluate(() => window.room.disconnect());
    await until(ben, 'ann to leave', ...has('ParticipantDisconnected ann'));
    return { joined, stream, begun, played, highest, lowest, ann: await ann.evaluate(() => window.seen), ben: await ben.evaluate(() => window.seen) };
  } finally {
    server.close();
  }
});
console.log(JSON.stringify(seen));
