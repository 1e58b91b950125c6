// Ann publishes VP9 with a backup codec, as livekit-client does it, for carl, who knows VP9, and ben, who does not. Prints what they saw
// as one line of JSON.
//
// node backup_codec.mjs --url ws://127.0.0.1:8080 --ann TOKEN --ben TOKEN --carl TOKEN --single 1 [--screenshot FILE]

import { options, pause, until, withBrowsers } from './browser.mjs';
import { serve } from './livekit.mjs';

const wanted = options({ url: '', ann: '', ben: '', carl: '', single: 0, screenshot: '' });
const setting = { deadline: 180000, screenshot: wanted.screenshot };

const PAGE = '<!doctype html><title>codecs</title><script src="/livekit.js"></script><p id=state></p><div id=all></div>';

/** In the page: joins, and shows all that comes. */
async function join([url, token, single]) {
  const { Room, RoomEvent } = window.LivekitClient;
  const room = new Room({ adaptiveStream: false, dynacast: true, singlePeerConnection: single });
  window.room = room;
  room.on(RoomEvent.TrackSubscribed, (track) => { document.getElementById('all').append(track.attach()); });
  await room.connect(url, token);
}

/** In the page: what is decoded of ann's camera. */
async function shown() {
  const camera = window.room.remoteParticipants.get('ann')?.getTrackPublication('camera')?.track;
  const report = [...(await camera?.getRTCStatsReport())?.values() ?? []];
  const inbound = report.find((one) => one.type === 'inbound-rtp');
  const codec = report.find((one) => one.id === inbound?.codecId)?.mimeType;
  return (inbound?.framesDecoded ?? 0) > 20 && camera.attachedElements[0].videoWidth > 0 && { codec, frames: inbound.framesDecoded };
}

/** In the page: what ann sends, by codec: whether something of it is. */
function sent() {
  const track = window.room.localParticipant.getTrackPublication('camera').videoTrack;
  const further = [...track.simulcastCodecs].filter(([, one]) => one.sender);
  const all = [[track.codec, track.sender], ...further.map(([codec, one]) => [codec, one.sender])];
  return Object.fromEntries(all.map(([codec, sender]) => [codec, sender.getParameters().encodings.some((one) => one.active)]));
}

const seen = await withBrowsers(setting, async (open) => {
  const server = await serve(PAGE);
  try {
    const page = `http://localhost:${server.address().port}/`;
    const [ann, carl] = [await open('chromium', page), await open('chromium', page)];
    const arrive = (who, token) => who.evaluate(join, [wanted.url, token, wanted.single !== 0]);
    await arrive(ann, wanted.ann);
    await ann.evaluate(async () => {
      const encoding = { maxBitrate: 400000, maxFramerate: 15 };
      await window.room.localParticipant.setCameraEnabled(true, { resolution: { width: 640, height: 360, frameRate: 15 } }, {
        videoCodec: 'vp9', backupCodec: { codec: 'vp8', encoding }, videoEncoding: encoding,
      });
    });
    await arrive(carl, wanted.carl);
    const first = await until(carl, "ann's pictures", shown);
    const before = await ann.evaluate(sent);
    const ben = await open('firefox_vp8', page);
    await arrive(ben, wanted.ben);
    const other = await until(ben, "ann's pictures in a codec that is known there", shown);
    const both = await ann.evaluate(sent);
    const frames = async (who) => (await who.evaluate(shown)).frames;
    const was = [await frames(carl), await frames(ben)];
    await pause(2000);
    const is = [await frames(carl), await frames(ben)];
    if (wanted.screenshot) await ben.screenshot({ path: wanted.screenshot });
    await ben.evaluate(() => window.room.disconnect());
    const after = await until(ann, 'the backup to stop', () => {
      const track = window.room.localParticipant.getTrackPublication('camera').videoTrack;
      const active = (sender) => sender.getParameters().encodings.some((one) => one.active);
      const backup = track.simulcastCodecs.get('vp8');
      return backup?.sender && !active(backup.sender) && { vp9: active(track.sender) };
    }, null, 20000);
    return { carl: first, ben: other, before, both, more: [is[0] - was[0], is[1] - was[1]], after };
  } finally {
    server.close();
  }
});
console.log(JSON.stringify(seen));
