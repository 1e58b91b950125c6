// Plays one stream by WHEP, and comes back by itself when anything in between goes away.

import { Latency } from './latency.js';
import { byId, sentence, showFigures, withToken } from './page.js';
import { Refused, Session, audioName, bitrate, describe, layerName } from './signalling.js';

const FIRST_WAIT = 500;
const LONGEST_WAIT = 5000;
/** What of a picture's spatial layers a frame needs is told of AV1 alone. */
const PLAYS_AV1 = RTCRtpReceiver.getCapabilities?.('video')?.codecs.some((c) => c.mimeType === 'video/AV1');
/** Without a new picture for this long, something is wrong that the connection's state does not tell. */
const STALLED = 10000;

const stream = location.pathname.slice(1);
const video = byId('video');
const menu = byId('layer');
const audioMenu = byId('audio');
const latency = new Latency(video, byId('latency'));

class Player {
  constructor() {
    this.wait = FIRST_WAIT;
    this.layer = new URLSearchParams(location.search).get('layer') || null;
    /** The audio track, by its number or language. */
    this.audio = new URLSearchParams(location.search).get('audio') || null;
    this.maxHeight = null;
    /** As few frames a second as the stream's temporal layers allow. */
    this.fewer = false;
    this.paused = false;
    this.session = null;
    /** What the server last told of the session. */
    this.server = null;
    this.last = null;
  }

  get pc() {
    return this.session?.pc ?? null;
  }

  async start() {
    const pc = new RTCPeerConnection();
    const session = new Session(pc);
    this.session = session;
    this.frames = { count: 0, at: performance.now() };
    const media = new MediaStream();
    for (const kind of ['video', 'audio']) {
      const transceiver = pc.addTransceiver(kind, { direction: 'recvonly' });
      const { receiver } = transceiver;
      if (kind === 'video' && PLAYS_AV1) describe(transceiver);
      // Show what comes at once: a longer buffer only adds latency.
      if ('jitterBufferTarget' in receiver) receiver.jitterBufferTarget = 0;
      media.addTrack(receiver.track);
    }
    video.srcObject = media;
    pc.addEventListener('connectionstatechange', () => {
      if (this.session !== session) return;
      if (pc.connectionState === 'connected') say('Waiting for a picture…');
      if (['failed', 'closed'].includes(pc.connectionState)) this.again('The connection was lost.');
    });
    try {
      const wishes = Object.entries({ layer: this.layer, audio: this.audio }).filter(([, wish]) => wish);
      const query = new URLSearchParams(wishes).toString();
      await session.open(withToken(`/whep/${stream}${query && `?${query}`}`));
      this.wait = FIRST_WAIT;
      latency.follow(session);
      session.listen({
        status: (status) => {
          this.server = status;
          showServer(status);
          audioMenu.value = status.layer.audio ?? '';
        },
        end: ({ reason }) => {
          if (this.session !== session) return;
          this.again(reason === 'server-stopped' ? 'The server has ended.' : 'The session has ended.');
        },
        reconnect: ({ url }) => {
          if (this.session !== session) return;
          // Not all at once.
          if (url) setTimeout(() => location.replace(new URL(location.pathname + location.search, url)), Math.random() * 2000);
          else this.again('The server is about to end.', 1 + Math.random() * 2);
        },
        audio: ({ tracks }) => refreshAudioMenu(tracks),
        layers: ({ medias }) => {
          refreshMenu(medias[0].layers);
          showServer(this.server);
          byId('rate-label').hidden = !medias[0].layers.some((layer) => layer.temporalLayers > 1);
        },
      });
      if (this.maxHeight || this.fewer || this.paused) await this.ask();
    } catch (error) {
      this.refused(session, error);
    }
  }

  refused(session, error) {
    if (this.session !== session) return;
    if (!(error instanceof Refused)) console.error(error);
    if (error instanceof Refused && error.status === 400) {
      // The layer that the address asks for is not there: better another than none.
      this.layer = null;
      this.audio = null;
    }
    // fetch() fails with a TypeError where nobody answers.
    const offline = error instanceof TypeError;
    this.again(offline ? 'The server does not answer.' : error.message, error.retryAfter);
  }

  /** Begins anew after a pause that grows from try to try. */
  again(reason, seconds = 0) {
    this.stop();
    say(`${sentence(reason)} Trying again…`, true);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.start(), Math.max(this.wait, seconds * 1000));
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT);
  }

  stop() {
    latency.follow(null);
    this.session?.close();
    this.session = null;
    this.server = null;
    showServer(null);
  }

  choose(rid) {
    this.layer = rid;
    return this.ask();
  }

  hear(id) {
    this.audio = id;
    return this.ask();
  }

  /** Tells the server all that is wanted. */
  async ask() {
    if (!this.session?.resource) return;
    try {
      await this.session.want({
        encodingId: this.layer,
        maxHeight: this.maxHeight,
        maxTemporalLayerId: this.fewer ? 0 : null,
        video: !this.paused,
        audio: this.audio,
      });
    } catch (error) {
      if (error instanceof Refused && error.status === 404) this.again('The session has ended.');
      else say(error.message, true);
    }
  }

  /** The browser's figures of the video, and what has become of it since the last call. */
  async stats() {
    if (!this.pc) return null;
    const report = await this.pc.getStats();
    const all = [...report.values()];
    const inbound = (kind) => all.find((s) => s.type === 'inbound-rtp' && s.kind === kind) ?? {};
    const [picture, sound] = [inbound('video'), inbound('audio')];
    const pair = all.find((s) => s.type === 'candidate-pair' && s.nominated) ?? {};
    const now = { at: performance.now(), bytes: picture.bytesReceived ?? 0, frames: picture.framesDecoded ?? 0 };
    const last = this.last ?? now;
    this.last = now;
    const seconds = Math.max((now.at - last.at) / 1000, 0.001);
    const buffered = picture.jitterBufferEmittedCount
      ? (picture.jitterBufferDelay / picture.jitterBufferEmittedCount) * 1000
      : null;
    return {
      state: this.pc.connectionState,
      codec: report.get(picture.codecId)?.mimeType ?? '',
      width: picture.frameWidth ?? 0,
      height: picture.frameHeight ?? 0,
      framesDecoded: now.frames,
      fps: (now.frames - last.frames) / seconds,
      bitrate: ((now.bytes - last.bytes) * 8) / seconds,
      packetsLost: picture.packetsLost ?? 0,
      nackCount: picture.nackCount ?? 0,
      pliCount: picture.pliCount ?? 0,
      freezeCount: picture.freezeCount ?? 0,
      jitterBufferMs: buffered,
      latencyMs: latency.ms,
      rttMs: pair.currentRoundTripTime ? pair.currentRoundTripTime * 1000 : null,
      audioEnergy: sound.totalAudioEnergy ?? 0,
      audioLevel: sound.audioLevel ?? 0,
    };
  }

  /** Every second: figures, and whether pictures still come. */
  async watch() {
    const stats = await this.stats();
    if (!stats) return;
    show(stats);
    if (stats.framesDecoded > this.frames.count) {
      this.frames = { count: stats.framesDecoded, at: performance.now() };
      say('');
    } else if (this.server?.layer.target === null) {
      // The server sends no video on purpose.
      this.frames.at = performance.now();
      const slow = 'Your connection is too slow for video now. The sound goes on.';
      if (stats.state === 'connected') say(this.paused ? 'Video is paused.' : slow);
    } else if (performance.now() - this.frames.at > STALLED && stats.state === 'connected') {
      const info = await fetch(withToken(`/api/streams/${stream}`)).then((r) => r.json()).catch(() => null);
      // A publisher that has just come back, or is gone without a word, is no reason for another session.
      const sent = info?.live && info.uptime_ms > STALLED && info.video?.layers.some((layer) => layer.active);
      if (sent) this.again('No pictures come.');
      else if (info?.video || !info?.live) say('Waiting for the stream to come back…');
    }
  }
}

function say(text, isError = false) {
  byId('notice').textContent = text;
  byId('notice').hidden = !text;
  byId('state').textContent = text || 'Live';
  byId('state').className = text ? (isError ? 'error' : '') : 'live dot';
}

function show(stats) {
  const ms = (value) => (value === null ? '–' : `${value.toFixed(0)} ms`);
  const figures = {
    Picture: stats.width ? `${stats.width}×${stats.height}` : '–',
    'Frame rate': `${stats.fps.toFixed(1)} fps`,
    Bitrate: bitrate(stats.bitrate),
    Codec: stats.codec.split('/')[1] ?? '–',
    'Packets lost': stats.packetsLost,
    'Asked again (NACK)': stats.nackCount,
    'Keyframes asked (PLI)': stats.pliCount,
    Freezes: stats.freezeCount,
    Latency: ms(stats.latencyMs),
    'Jitter buffer': ms(stats.jitterBufferMs),
    'Round trip': ms(stats.rttMs),
    Connection: stats.state,
  };
  showFigures(byId('figures'), figures);
}

const REASONS = {
  highest: 'the highest layer there is',
  pinned: 'the layer that you chose',
  capped: 'the highest layer below your limit',
  bandwidth: 'the highest layer that your connection carries',
  paused: 'video is paused',
  'no-bandwidth': 'your connection is too slow for video now; sound goes on',
  'not-sent': 'the publisher does not send it now',
  'no-common-codec': 'your browser did not offer the codec that the publisher sends now: reload the page',
  'packet-too-large': 'the packets of this stream are too large for your network (a VPN or tunnel?): parts of the picture may be missing',
};

let names = new Map();

/** Which layer the server sends and why, as it tells it. */
function showServer(status) {
  if (!status) {
    byId('why').textContent = '';
    return;
  }
  const { layer, estimate, loss } = status;
  const name = (rid) => (rid === null ? 'no video' : names.get(rid) ?? `layer ${rid}`);
  const changing = layer.target !== layer.current && layer.target !== null ? ` → ${name(layer.target)} at the next keyframe` : '';
  const fewer = layer.current !== null && layer.current_temporal !== null ? ' with fewer frames' : '';
  const network = estimate === null ? '' : ` · your connection: about ${bitrate(estimate)}`;
  const lost = loss ? `, ${(loss * 100).toFixed(1)} % lost` : '';
  byId('why').textContent = `Now ${name(layer.current)}${fewer}${changing}: ${REASONS[layer.why] ?? layer.why}${network}${lost}`;
}

/** Keeps the menu as the server's layers are, without disturbing somebody who has it open. */
function refreshMenu(layers) {
  names = new Map(layers.map((l) => [l.encodingId, layerName(l)]));
  const wanted = [['', 'Automatic'], ...layers.map((l) => [l.encodingId, `${layerName(l)} · ${bitrate(l.bitrate)}`])];
  const present = [...menu.options].map((o) => o.value);
  if (wanted.map(([rid]) => rid).join() !== present.join()) {
    menu.replaceChildren(...wanted.map(([rid, name]) => new Option(name, rid)));
  } else if (document.activeElement !== menu) {
    wanted.forEach(([, name], n) => { menu.options[n].textContent = name; });
  }
  menu.value = player.layer ?? '';
}

/** Which audio tracks there are: no menu for one alone. */
function refreshAudioMenu(tracks) {
  audioMenu.replaceChildren(...tracks.map((track) => new Option(audioName(track), track.id)));
  audioMenu.value = player.server?.layer.audio ?? '';
  byId('audio-label').hidden = tracks.length < 2;
}

function showMuted() {
  byId('unmute').hidden = !video.muted;
  byId('mute').textContent = video.muted ? 'Sound off' : 'Sound on';
  byId('mute').setAttribute('aria-pressed', String(video.muted));
}

const toggleSound = () => {
  video.muted = !video.muted;
  video.play().catch(() => {});
};

byId('name').textContent = stream;
fetch(withToken(`/api/streams/${stream}`)).then((answer) => (answer.ok ? answer.json() : {})).then(({ hls }) => {
  byId('hls').hidden = !hls;
  byId('hls').href = withToken(`/hls/${stream}`);
}).catch(() => {});
document.title = stream;
byId('unmute').addEventListener('click', toggleSound);
byId('mute').addEventListener('click', toggleSound);
video.addEventListener('volumechange', showMuted);
menu.addEventListener('change', () => player.choose(menu.value || null));
audioMenu.addEventListener('change', () => player.hear(audioMenu.value));
byId('cap').addEventListener('change', ({ target }) => {
  player.maxHeight = Number(target.value) || null;
  player.ask();
});
byId('rate').addEventListener('change', ({ target }) => {
  player.fewer = target.value === 'fewer';
  player.ask();
});
byId('pause').addEventListener('click', ({ target }) => {
  player.paused = !player.paused;
  target.textContent = player.paused ? 'Play video' : 'Pause video';
  target.setAttribute('aria-pressed', String(player.paused));
  player.ask();
});
byId('fullscreen').addEventListener('click', () => byId('stage').requestFullscreen?.());
byId('figures-button').addEventListener('click', ({ target }) => {
  const hidden = byId('figures').toggleAttribute('hidden');
  target.setAttribute('aria-expanded', String(!hidden));
});
if (document.pictureInPictureEnabled) {
  byId('pip').hidden = false;
  byId('pip').addEventListener('click', () => video.requestPictureInPicture().catch(() => {}));
}
addEventListener('pagehide', () => player.stop());

const player = new Player();
window.player = player;
showMuted();
player.start();
setInterval(() => player.watch(), 1000);
