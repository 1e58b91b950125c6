// Chromium publishes and plays with offers that were changed, as applications do; prints what was seen as one line of JSON:
// by the change's name, how many pictures were decoded, how loud it was, and what was wrong.
//
// node munged.mjs --base http://127.0.0.1:8080 --seconds 6

import { options, pause, withBrowsers } from './browser.mjs';

const wanted = options({ base: '', seconds: 6, screenshot: '' });

/** In the page: the changes, and a session with one. */
function prepare() {
  const lines = (sdp, change) => sdp.split('\r\n').map(change).filter((line) => line !== null).join('\r\n');
  const without = (sdp, pattern) => lines(sdp, (line) => (pattern.test(line) ? null : line));
  const video = (sdp, change) => sdp.replace(/m=video[^]*?(?=m=|$)/, change);
  const types = (section) => section.match(/^m=video \S+ \S+ (.*)$/m)[1].trim().split(' ');
  /** Each payload type of pictures is called as another one. */
  const renamed = (sdp, other) => video(sdp, (section) => {
    const all = types(section);
    const name = (pt) => other(all, all.indexOf(pt)) ?? pt;
    return lines(section, (line) => line
      .replace(/^(m=video \S+ \S+ )(.*)/, (_, head, list) => head + list.trim().split(' ').map(name).join(' '))
      .replace(/^a=(rtpmap|fmtp|rtcp-fb):(\d+)/, (_, what, pt) => `a=${what}:${name(pt)}`)
      .replace(/apt=(\d+)/, (_, pt) => `apt=${name(pt)}`));
  });
  window.changes = {
    none: (sdp) => sdp,
    h264: (sdp) => sdp,
    noRtx: (sdp) => video(sdp, (section) => {
      const rtx = [...section.matchAll(/^a=rtpmap:(\d+) rtx\//gm)].map((match) => match[1]);
      const gone = new RegExp(`^a=(rtpmap|fmtp|rtcp-fb):(${rtx.join('|')}) |^a=ssrc-group:FID`);
      const first = section.match(/^a=ssrc-group:FID (\d+)/m)?.[1];
      return lines(section, (line) => {
        if (gone.test(line) || (first && line.startsWith('a=ssrc:') && !line.startsWith(`a=ssrc:${first} `))) return null;
        return line.replace(/^(m=video \S+ \S+ )(.*)/, (_, head, list) => head
          + list.trim().split(' ').filter((pt) => !rtx.includes(pt)).join(' '));
      });
    }),
    noTwcc: (sdp) => without(sdp, /transport-cc|transport-wide-cc/),
    noNack: (sdp) => without(sdp, /^a=rtcp-fb:\d+ nack$/),
    noMid: (sdp) => without(sdp, /sdes:mid/),
    otherTypes: (sdp) => renamed(sdp, (all, n) => all[(n + 1) % all.length]),
    highIds: (sdp) => sdp.replace(/^a=extmap:(\d+)/gm, (_, id) => `a=extmap:${Number(id) + 20}`),
    stereo: (sdp) => sdp.replace(/useinbandfec=1/, 'useinbandfec=1;stereo=1;sprop-stereo=1'),
    // Nothing but what a stack of few words says. It is not told to Chromium itself, which would send nothing.
    bare: (sdp) => without(sdp, /^a=(extmap|rtcp-fb:\d+ (goog-remb|transport-cc|ccm fir)|ssrc|msid|rtcp:|rtcp-rsize|ice-options)/),
  };
  window.session = async (name, path, direction, tracks) => {
    const pc = new RTCPeerConnection();
    for (const kind of ['audio', 'video']) {
      const transceiver = pc.addTransceiver(tracks?.[kind] ?? kind, { direction });
      if (name === 'h264' && kind === 'video') {
        const side = direction === 'sendonly' ? RTCRtpSender : RTCRtpReceiver;
        const { codecs } = side.getCapabilities('video');
        transceiver.setCodecPreferences(codecs.filter((codec) => /H264|rtx/.test(codec.mimeType)));
      }
    }
    const offer = await pc.createOffer();
    const sdp = window.changes[name](offer.sdp);
    if (!['none', 'h264'].includes(name) && sdp === offer.sdp) throw new Error(`${name} changes nothing`);
    await pc.setLocalDescription({ type: 'offer', sdp: name === 'bare' ? offer.sdp : sdp });
    const headers = { 'Content-Type': 'application/sdp' };
    const response = await fetch(path, { method: 'POST', headers, body: sdp });
    const answer = await response.text();
    if (response.status !== 201) throw new Error(`${response.status} ${answer}`);
    // Sound that nobody plays is not decoded.
    const player = document.createElement('video');
    player.autoplay = true;
    player.srcObject = new MediaStream();
    pc.ontrack = ({ track }) => player.srcObject.addTrack(track);
    await pc.setRemoteDescription({ type: 'answer', sdp: answer });
    return { pc, answer, player };
  };
  window.seen = async ({ pc }) => {
    const all = [...(await pc.getStats()).values()].filter((one) => one.type === 'inbound-rtp');
    const of = (kind) => all.find((one) => one.kind === kind) ?? {};
    return { frames: of('video').framesDecoded ?? 0, energy: of('audio').totalAudioEnergy ?? 0 };
  };
}

const results = await withBrowsers({ deadline: 150000, screenshot: wanted.screenshot }, async (open) => {
  const page = await open('chromium', `${wanted.base}/healthz`);
  await page.evaluate(prepare);
  const all = (does) => page.evaluate(`(async () => {
    const each = Object.keys(window.changes).map(async (name) => {
      const one = window.results[name];
      if (one.error) return;
      try { await (${does})(name, one); } catch (error) { one.error = String(error); }
    });
    await Promise.all(each);
  })()`);
  await page.evaluate(async () => {
    window.results = Object.fromEntries(Object.keys(window.changes).map((name) => [name, {}]));
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 320, height: 180, frameRate: 15 } });
    window.tracks = { audio: stream.getAudioTracks()[0], video: stream.getVideoTracks()[0] };
  });
  await all(async (name, one) => { one.publisher = await window.session(name, `/whip/${name}`, 'sendonly', window.tracks); });
  // Who watches comes late. To a viewer without NACK nothing is sent again.
  await pause(4000);
  await all(async (name, one) => {
    const change = name === 'noNack' ? 'none' : name;
    one.viewer = await window.session(change, `/whep/${name}`, 'recvonly');
  });
  await pause(3000);
  await all(async (name, one) => { one.before = await window.seen(one.viewer); });
  await pause(wanted.seconds * 1000);
  await all(async (name, one) => { one.after = await window.seen(one.viewer); });
  return page.evaluate(() => Object.fromEntries(Object.entries(window.results).map(([name, one]) => [name, {
    error: one.error ?? null,
    frames: (one.after?.frames ?? 0) - (one.before?.frames ?? 0),
    energy: (one.after?.energy ?? 0) - (one.before?.energy ?? 0),
    stereo: [one.publisher, one.viewer].every((side) => side?.answer.includes('stereo=1')),
  }])));
});
console.log(JSON.stringify(results));
