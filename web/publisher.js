// Publishes the camera or the screen by WHIP, in up to three layers.

import { obstacle } from './devices.js';
import { byId, showFigures, withToken } from './page.js';
import { Sender, fillCodecs } from './sender.js';
import { Refused, bitrate } from './signalling.js';

const stream = location.pathname.replace(/^\/publish\//, '');
const wanted = new URLSearchParams(location.search);

class Publisher {
  sender = null;
  media = null;

  async start() {
    say('Asking for the source…');
    this.media = await capture(byId('source').value);
    byId('preview').srcObject = this.media;
    this.sender = new Sender(this.media, {
      codec: byId('codec').value,
      simulcast: byId('simulcast').checked,
      scalability: wanted.get('scalability'),
    });
    const { pc } = this.sender;
    this.media.getVideoTracks()[0].addEventListener('ended', () => this.stop('The source has ended.'));
    pc.addEventListener('connectionstatechange', () => {
      if (pc.connectionState === 'connected') say('Live', 'live dot');
      if (pc.connectionState === 'failed') this.stop('The connection was lost.');
    });
    const takeover = byId('takeover').checked ? '?takeover=1' : '';
    await this.sender.open(withToken(`/whip/${stream}${takeover}`));
    byId('figures').hidden = false;
  }

  stop(reason = 'Not live') {
    this.sender?.close();
    this.sender = null;
    for (const track of this.media?.getTracks() ?? []) track.stop();
    this.media = null;
    byId('preview').srcObject = null;
    byId('figures').hidden = true;
    byId('go').textContent = 'Go live';
    say(reason);
  }

  /** What leaves on each layer. */
  async stats() {
    return (await this.sender?.stats())?.layers ?? [];
  }
}

/** The address may ask a camera for another picture: `?width=960&height=540&fps=15`. */
function capture(source) {
  const ideal = (name, usual) => ({ ideal: Number(wanted.get(name)) || usual });
  const video = { width: ideal('width', 1280), height: ideal('height', 720), frameRate: ideal('fps', 30) };
  return source === 'screen'
    ? navigator.mediaDevices.getDisplayMedia({ video: { frameRate: video.frameRate }, audio: true })
    : navigator.mediaDevices.getUserMedia({ video, audio: true });
}

function say(text, className = '') {
  byId('state').textContent = text;
  byId('state').className = className;
}

async function refresh() {
  const stats = await publisher.stats();
  const named = stats.map((s) => {
    const name = [s.kind, s.rid, s.height ? `${s.width}×${s.height}` : ''].filter(Boolean).join(' ');
    return [name, bitrate(s.bitrate)];
  });
  showFigures(byId('figures'), Object.fromEntries(named));
}

byId('name').textContent = stream;
byId('watch').href = withToken(`/${stream}`);
byId('studio').href = withToken(`/studio/${stream}`);
document.title = `Publish ${stream}`;
fillCodecs(byId('codec'));

const publisher = new Publisher();
window.publisher = publisher;
byId('go').addEventListener('click', async () => {
  if (publisher.sender) {
    publisher.stop();
    return;
  }
  const missing = obstacle();
  if (missing) {
    say(missing, 'error');
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
