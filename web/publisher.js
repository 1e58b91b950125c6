// Publishes the camera or the screen by WHIP, in up to three layers.

import { Refused, Session, bitrate } from './signalling.js';

const byId = (id) => document.getElementById(id);
const stream = location.pathname.replace(/^\/publish\//, '');
const LAYERS = [
  { rid: 'h', maxBitrate: 2500000 },
  { rid: 'm', maxBitrate: 900000, scaleResolutionDownBy: 2 },
  { rid: 'l', maxBitrate: 250000, scaleResolutionDownBy: 4 },
];

class Publisher {
  session = null;
  media = null;
  last = new Map();

  async start() {
    say('Asking for the source…');
    this.media = await capture(byId('source').value);
    byId('preview').srcObject = this.media;
    const pc = new RTCPeerConnection();
    this.session = new Session(pc);
    const [video] = this.media.getVideoTracks();
    const [audio] = this.media.getAudioTracks();
    const simulcast = byId('simulcast').checked;
    const sendEncodings = simulcast ? LAYERS : [{ maxBitrate: LAYERS[0].maxBitrate }];
    const transceiver = pc.addTransceiver(video, { direction: 'sendonly', sendEncodings, streams: [this.media] });
    prefer(transceiver, byId('codec').value);
    if (audio) pc.addTransceiver(audio, { direction: 'sendonly', streams: [this.media] });
    video.addEventListener('ended', () => this.stop('The source has ended.'));
    pc.addEventListener('connectionstatechange', () => {
      if (pc.connectionState === 'connected') say('Live', 'live dot');
      if (pc.connectionState === 'failed') this.stop('The connection was lost.');
    });
    const takeover = byId('takeover').checked ? '?takeover=1' : '';
    await this.session.open(`/whip/${stream}${takeover}`);
    byId('figures').hidden = false;
  }

  stop(reason = 'Not live') {
    this.session?.close();
    this.session = null;
    for (const track of this.media?.getTracks() ?? []) track.stop();
    this.media = null;
    byId('preview').srcObject = null;
    byId('figures').hidden = true;
    byId('go').textContent = 'Go live';
    say(reason);
  }

  /** What leaves on each layer. */
  async stats() {
    if (!this.session) return [];
    const report = await this.session.pc.getStats();
    const sent = [...report.values()].filter((s) => s.type === 'outbound-rtp');
    return sent.map((s) => {
      const last = this.last.get(s.id) ?? s;
      this.last.set(s.id, s);
      const seconds = Math.max((s.timestamp - last.timestamp) / 1000, 0.001);
      return {
        kind: s.kind,
        rid: s.rid ?? '',
        width: s.frameWidth ?? 0,
        height: s.frameHeight ?? 0,
        bitrate: ((s.bytesSent - last.bytesSent) * 8) / seconds,
        pliCount: s.pliCount ?? 0,
        nackCount: s.nackCount ?? 0,
        limitation: s.qualityLimitationReason ?? 'none',
      };
    });
  }
}

function capture(source) {
  const video = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
  return source === 'screen'
    ? navigator.mediaDevices.getDisplayMedia({ video: { frameRate: 30 }, audio: true })
    : navigator.mediaDevices.getUserMedia({ video, audio: true });
}

/** Puts one codec first; the server takes the first one that it knows. */
function prefer(transceiver, mimeType) {
  const all = RTCRtpSender.getCapabilities('video').codecs;
  const first = all.filter((c) => c.mimeType === mimeType);
  transceiver.setCodecPreferences?.([...first, ...all.filter((c) => c.mimeType !== mimeType)]);
}

function say(text, className = '') {
  byId('state').textContent = text;
  byId('state').className = className;
}

async function refresh() {
  const stats = await publisher.stats();
  const groups = stats.map((s) => {
    const group = document.createElement('div');
    const [term, description] = [document.createElement('dt'), document.createElement('dd')];
    term.textContent = [s.kind, s.rid, s.height ? `${s.width}×${s.height}` : ''].filter(Boolean).join(' ');
    description.textContent = bitrate(s.bitrate);
    group.append(term, description);
    return group;
  });
  byId('figures').replaceChildren(...groups);
}

byId('name').textContent = stream;
byId('watch').href = `/${stream}`;
document.title = `Publish ${stream}`;
const mimeTypes = RTCRtpSender.getCapabilities('video').codecs.map((c) => c.mimeType);
const offered = ['video/H264', 'video/VP8', 'video/VP9', 'video/AV1'].filter((m) => mimeTypes.includes(m));
byId('codec').replaceChildren(...offered.map((m) => new Option(m.split('/')[1], m)));

const publisher = new Publisher();
window.publisher = publisher;
byId('go').addEventListener('click', async () => {
  if (publisher.session) {
    publisher.stop();
    return;
  }
  byId('go').textContent = 'Stop';
  try {
    await publisher.start();
  } catch (error) {
    publisher.stop();
    say(error instanceof Refused ? error.message : `It did not work: ${error.message}`, 'error');
  }
});
addEventListener('pagehide', () => publisher.stop());
setInterval(refresh, 1000);
