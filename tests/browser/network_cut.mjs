// Two meet in a room, livekit-client as it comes from npm; the second one's network lets nothing through for a while, and is as before
// then. Prints what both saw as one line of JSON.
//
// CHROMIUM_FAR=FILE node network_cut.mjs --near ws://127.0.0.1:8080 --url ws://10.99.1.1:8080 --ann TOKEN --ben TOKEN --single 1 --router "nsenter -t 123 -n --"
//   --cut 3000 [--screenshot FILE]
//
// `router` is what a command is to begin with to run on the router between the two.

import { execFileSync } from 'node:child_process';
import { options, pause, until, withBrowsers } from './browser.mjs';
import { openThere, serve } from './livekit.mjs';

const wanted = options({ near: '', url: '', ann: '', ben: '', single: 0, router: '', cut: 3000, screenshot: '' });
const setting = { deadline: 150000 + wanted.cut, screenshot: wanted.screenshot };

const PAGE = '<!doctype html><title>cut</title><script src="/livekit.js"></script><p id=state></p><div id=all></div>';

function onRouter(line) {
  const [program, ...first] = wanted.router.split(' ');
  execFileSync(program, [...first, ...line.split(' ')], { stdio: ['ignore', 'inherit', 'inherit'] });
}

function cut() {
  onRouter('nft add table inet cut');
  onRouter('nft add chain inet cut through { type filter hook forward priority 0 ; policy drop ; }');
}

/** In the page: joins with a small camera and a tone, shows all that comes, and keeps what happens. */
async function join([url, token, single]) {
  const { Room, RoomEvent } = window.LivekitClient;
  const room = new Room({ adaptiveStream: false, dynacast: true, singlePeerConnection: single });
  const seen = { events: [], most: 0 };
  Object.assign(window, { room, seen });
  for (const name of ['ParticipantConnected', 'ParticipantDisconnected', 'SignalReconnecting', 'Reconnecting', 'Reconnected', 'Disconnected']) {
    room.on(RoomEvent[name], (who) => seen.events.push(`${name} ${who?.identity ?? ''}`.trim()));
  }
  room.on(RoomEvent.TrackSubscribed, (track) => { document.getElementById('all').append(track.attach()); });
  room.on(RoomEvent.TrackUnsubscribed, (track) => { for (const one of track.detach()) one.remove(); });
  setInterval(() => { seen.most = Math.max(seen.most, room.remoteParticipants.size); }, 50);
  await room.connect(url, token);
  const context = new AudioContext();
  const tone = context.createOscillator();
  const microphone = context.createMediaStreamDestination();
  tone.connect(microphone);
  tone.start();
  await room.localParticipant.publishTrack(microphone.stream.getAudioTracks()[0], { source: 'microphone' });
  await room.localParticipant.setCameraEnabled(true, { resolution: { width: 320, height: 180, frameRate: 15 } }, { simulcast: false });
}

/** In the page: what has been shown and heard of somebody, if it is on the page. */
async function shown(who) {
  const other = window.room.remoteParticipants.get(who);
  const result = { frames: 0, energy: 0 };
  for (const publication of other?.trackPublications.values() ?? []) {
    const report = await publication.track?.getRTCStatsReport();
    for (const one of report?.values() ?? []) {
      if (one.type !== 'inbound-rtp') continue;
      if (one.kind === 'video') result.frames += one.framesDecoded ?? 0;
      else result.energy += one.totalAudioEnergy ?? 0;
    }
  }
  const elements = [...document.querySelectorAll('video')];
  return elements.some((one) => one.videoWidth > 0) && result.frames > 0 && result.energy > 0 && result;
}

/** Whether more comes of somebody than before, from now on. */
async function goesOn(page, who, patience) {
  const end = Date.now() + patience;
  let before = await page.evaluate(shown, who);
  while (Date.now() < end) {
    await pause(1000);
    const now = await page.evaluate(shown, who);
    if (before && now && now.frames > before.frames + 3 && now.energy > before.energy) return true;
    before = now;
  }
  return false;
}

const seen = await withBrowsers(setting, async (open) => {
  const server = await serve(PAGE);
  const ann = await open('chromium', `http://localhost:${server.address().port}/`);
  const ben = await openThere(open, 'chromium_far', PAGE);
  const single = wanted.single !== 0;
  await ann.evaluate(join, [wanted.near, wanted.ann, single]);
  await ben.evaluate(join, [wanted.url, wanted.ben, single]);
  await until(ben, 'ann', shown, 'ann');
  await until(ann, 'ben', shown, 'ben');
  cut();
  const began = Date.now();
  await pause(wanted.cut / 2);
  const cutFrames = [await ben.evaluate(shown, 'ann')];
  await pause(wanted.cut / 2);
  cutFrames.push(await ben.evaluate(shown, 'ann'));
  onRouter('nft delete table inet cut');
  const healed = Date.now();
  const back = { ben: await goesOn(ben, 'ann', 60000), ann: await goesOn(ann, 'ben', 60000) };
  const took = Date.now() - healed;
  if (wanted.screenshot) await ben.screenshot({ path: wanted.screenshot });
  server.close();
  const others = () => ({ ...window.seen, others: [...window.room.remoteParticipants.keys()], state: window.room.state });
  const all = { ann: await ann.evaluate(others), ben: await ben.evaluate(others) };
  const isCut = !cutFrames[1] || cutFrames[0]?.frames === cutFrames[1].frames;
  return { cut: healed - began, isCut, back, took, ...all };
});
console.log(JSON.stringify(seen));
