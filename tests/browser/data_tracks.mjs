// Two people in a room publish data tracks, get each other's, and go on when their connections break: livekit-client as it comes from
// npm, in two pages of a browser. Prints what they saw as one line of JSON.
//
// node data_tracks.mjs --url ws://127.0.0.1:8080 --ann TOKEN --ben TOKEN --single 1 [--screenshot FILE]

import { options, until, withBrowsers } from './browser.mjs';
import { serve } from './livekit.mjs';

const wanted = options({ url: '', ann: '', ben: '', single: 0, screenshot: '' });
const setting = { deadline: 150000, screenshot: wanted.screenshot };

const PAGE = '<!doctype html><title>data</title><script src="/livekit.js"></script><p id=state></p>';

/** In the page: joins, subscribes to all data that is published, and keeps what comes in `window.seen`. */
async function join([url, token, single]) {
  const { Room, RoomEvent } = window.LivekitClient;
  const room = new Room({ singlePeerConnection: single });
  const seen = { events: [], published: [], unpublished: [], frames: [], large: 0, ends: 0 };
  const follow = async (track) => {
    const reader = track.subscribe({ bufferSize: 64 }).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      if (value.payload.length > 1000) {
        const isWhole = value.payload.length === 100000 && value.payload.every((octet, n) => octet === n % 251);
        seen.large += isWhole ? 1 : 0;
      } else seen.frames.push([track.publisherIdentity, track.info.name, new TextDecoder().decode(value.payload)]);
    }
    seen.ends += 1;
  };
  Object.assign(window, { room, seen, follow });
  room.on(RoomEvent.DataTrackPublished, (track) => {
    seen.published.push([track.publisherIdentity, track.info.name, track.info.sid]);
    follow(track).catch((error) => { seen.events.push(`ended: ${error}`); });
  });
  room.on(RoomEvent.DataTrackUnpublished, (sid) => { seen.unpublished.push(sid); });
  for (const name of ['Reconnecting', 'Reconnected', 'SignalReconnecting', 'Disconnected']) {
    room.on(RoomEvent[name], () => { seen.events.push(name); });
  }
  await room.connect(url, token);
}

/** In the page: publishes, and sends `said` again and again: datagrams may be lost. */
async function publish(name) {
  window.said = 'first';
  window.track = await window.room.localParticipant.publishDataTrack({ name });
  const push = async (payload) => {
    try {
      await window.track.tryPush({ payload });
    } catch {
      // Not while it is published anew.
    }
  };
  window.push = push;
  setInterval(() => { push(new TextEncoder().encode(window.said)); }, 50);
  return window.track.info.sid;
}

const say = (text) => { window.said = text; };
const heard = ([who, name, text]) => window.seen.frames.some((one) => one[0] === who && one[1] === name && one[2] === text);
const refused = async (name) => {
  try {
    await window.room.localParticipant.publishDataTrack({ name });
    return 'published';
  } catch (error) {
    return error.reasonName ?? String(error);
  }
};
const events = (name) => window.seen.events.filter((one) => one === name).length;

const seen = await withBrowsers(setting, async (open) => {
  const server = await serve(PAGE);
  try {
    const page = `http://localhost:${server.address().port}/`;
    const single = wanted.single !== 0;
    const [ann, ben] = [await open('chromium', page), await open('chromium', page)];
    await ann.evaluate(join, [wanted.url, wanted.ann, single]);
    // What is there before somebody comes, and what is published later.
    const sids = { arm: await ann.evaluate(publish, 'arm') };
    await ben.evaluate(join, [wanted.url, wanted.ben, single]);
    await until(ben, "ann's data", heard, ['ann', 'arm', 'first']);
    sids.leg = await ben.evaluate(publish, 'leg');
    await until(ann, "ben's data", heard, ['ben', 'leg', 'first']);
    const faults = { again: await ann.evaluate(refused, 'arm'), unnamed: await ann.evaluate(refused, '') };
    await ann.evaluate(() => {
      const large = new Uint8Array(100000).map((_, n) => n % 251);
      window.timer = setInterval(() => { window.push(large); }, 250);
    });
    await until(ben, 'a large frame', () => window.seen.large > 0);
    await ann.evaluate(() => { clearInterval(window.timer); });
    // The connection breaks: nothing is published anew.
    await ann.evaluate(() => window.room.simulateScenario('signal-reconnect'));
    await until(ann, 'a resume', () => window.seen.events.some((one) => one === 'Reconnected' || one === 'SignalReconnecting') && window.room.state === 'connected');
    await ann.evaluate(say, 'resumed');
    await until(ben, 'data after a resume', heard, ['ann', 'arm', 'resumed']);
    await ben.evaluate(say, 'still');
    await until(ann, "ben's data after a resume", heard, ['ben', 'leg', 'still']);
    const before = await ben.evaluate(() => window.seen.published.length);
    // She comes anew, with another track of the same name.
    await ann.evaluate(() => window.room.simulateScenario('full-reconnect'));
    await until(ben, 'the track to be published anew', (count) => window.seen.published.length > count, before);
    await ann.evaluate(say, 'anew');
    await until(ben, 'data after a reconnect', heard, ['ann', 'arm', 'anew']);
    // So does he, who subscribes to what he finds.
    await until(ann, 'to be connected', () => window.room.state === 'connected');
    const times = await ben.evaluate(events, 'Reconnected');
    await ben.evaluate(() => window.room.simulateScenario('full-reconnect'));
    await until(ben, 'a reconnect', (count) => window.seen.events.filter((one) => one === 'Reconnected').length > count, times);
    await ben.evaluate(() => {
      window.follow(window.room.remoteParticipants.get('ann').dataTracks.get('arm'));
    });
    await ann.evaluate(say, 'to ben');
    await until(ben, 'data after his reconnect', heard, ['ann', 'arm', 'to ben']);
    // All ends with the track.
    const ends = await ben.evaluate(() => window.seen.ends);
    const gone = await ben.evaluate(() => window.seen.unpublished.length);
    await ann.evaluate(() => window.track.unpublish());
    await until(ben, 'the track to go', (count) => window.seen.unpublished.length > count, gone);
    await until(ben, 'the stream to end', (count) => window.seen.ends > count, ends);
    await ann.evaluate(() => window.room.disconnect());
    const found = (one) => one.evaluate(() => ({ published: window.seen.published, events: window.seen.events }));
    return { sids, faults, before, ann: await found(ann), ben: await found(ben) };
  } finally {
    server.close();
  }
});
console.log(JSON.stringify(seen));
