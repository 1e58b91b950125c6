// Six people meet in a room, by turns over one connection and over two: livekit-client as it comes from npm, each on a page of
// its own in one of these browsers. Prints what they saw as one line of JSON.
//
// node six.mjs --url ws://127.0.0.1:8080 --tokens TOKEN,… --browsers chromium:firefox:… [--screenshot FILE]

import { options, until, withBrowsers } from './browser.mjs';
import { serve } from './livekit.mjs';

const wanted = options({ url: '', tokens: '', browsers: '', screenshot: '' });

const PAGE = `<!doctype html><title>six</title><script src="/livekit.js"></script><p id=state></p><div id=all></div>`;

/** In the page: joins, and publishes camera and microphone. Six encoders and thirty decoders share a machine: 180p. */
async function join([url, token, single]) {
  const { Room, RoomEvent } = window.LivekitClient;
  const resolution = { width: 320, height: 180, frameRate: 15 };
  const room = new Room({ dynacast: true, singlePeerConnection: single, videoCaptureDefaults: { resolution } });
  const seen = { events: [], data: [] };
  Object.assign(window, { room, seen });
  for (const name of ['TrackMuted', 'ParticipantDisconnected', 'Reconnecting', 'TrackSubscriptionFailed', 'Disconnected']) {
    room.on(RoomEvent[name], (...all) => {
      const who = all.find((one) => one?.identity)?.identity ?? '';
      const what = all.find((one) => one?.source)?.source ?? '';
      seen.events.push(`${name} ${who} ${what}`.trim());
    });
  }
  room.on(RoomEvent.TrackSubscribed, (track) => document.getElementById('all').append(track.attach()));
  room.on(RoomEvent.DataReceived, (octets) => seen.data.push(new TextDecoder().decode(octets)));
  room.registerRpcMethod('name', async ({ callerIdentity }) => `${room.localParticipant.identity} to ${callerIdentity}`);
  await room.connect(url, token);
  await room.localParticipant.enableCameraAndMicrophone();
  return room.localParticipant.identity;
}

/** In the page: who is seen and heard. */
async function present(count) {
  const seen = [];
  for (const participant of window.room.remoteParticipants.values()) {
    const come = { video: false, audio: false };
    for (const publication of participant.trackPublications.values()) {
      const report = await publication.track?.getRTCStatsReport();
      for (const one of report?.values() ?? []) {
        if (one.type !== 'inbound-rtp') continue;
        come[one.kind] = one.kind === 'video' ? one.framesDecoded > 20 : one.totalSamplesReceived > 48000;
      }
    }
    if (come.video && come.audio) seen.push(participant.identity);
  }
  return seen.length >= count && seen.sort();
}

const seen = await withBrowsers({ deadline: 170000, screenshot: wanted.screenshot }, async (open) => {
  const server = await serve(PAGE);
  try {
    const page = `http://localhost:${server.address().port}/`;
    const tokens = wanted.tokens.split(',');
    const people = [];
    for (const [n, browser] of wanted.browsers.split(':').entries()) {
      const one = await open(browser, page);
      const name = await one.evaluate(join, [wanted.url, tokens[n], n % 2 === 1]);
      people.push({ page: one, name });
    }
    const others = people.length - 1;
    const whole = {};
    for (const one of people) whole[one.name] = await until(one.page, `all by ${one.name}`, present, others);
    for (const one of people) {
      await one.page.evaluate(() => {
        const { localParticipant } = window.room;
        return localParticipant.publishData(new TextEncoder().encode(localParticipant.identity), { reliable: true });
      });
    }
    const data = {};
    for (const one of people) {
      await until(one.page, `data for ${one.name}`, (count) => window.seen.data.length >= count, others);
      data[one.name] = await one.page.evaluate(() => window.seen.data.toSorted());
    }
    const call = (who) => window.room.localParticipant.performRpc({ destinationIdentity: who, method: 'name', payload: '' });
    const called = {};
    for (const [n, one] of people.entries()) called[one.name] = await one.page.evaluate(call, people[(n + 1) % people.length].name);
    const [first, last] = [people[0], people.at(-1)];
    await first.page.evaluate(() => window.room.localParticipant.setCameraEnabled(false));
    const has = (event) => window.seen.events.includes(event);
    for (const one of people.slice(1)) await until(one.page, 'the first without a camera', has, `TrackMuted ${first.name} camera`);
    await last.page.evaluate(() => window.room.disconnect());
    for (const one of people.slice(0, -1)) await until(one.page, 'the last to leave', has, `ParticipantDisconnected ${last.name}`);
    const bad = /^(Reconnecting|TrackSubscriptionFailed|Disconnected)/;
    const faults = [];
    for (const one of people.slice(0, -1)) {
      const events = await one.page.evaluate(() => window.seen.events);
      faults.push(...events.filter((event) => bad.test(event)).map((event) => `${one.name}: ${event}`));
    }
    return { present: whole, data, called, faults };
  } finally {
    server.close();
  }
});
console.log(JSON.stringify(seen));
