// WHEP and WHIP (RFC 9725) for the pages: one session, its resource on the server, and how things are worded.

import { hasServers } from './ice.js';

const DEPENDENCY = 'https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension';

/** How a layer is called for people. */
export function layerName(layer) {
  return layer.height ? `${layer.height}p` : `Layer ${layer.rid ?? layer.encodingId}`;
}

/** How an audio track is called for people: the language's name in the page's language, where it is known. */
export function audioName({ id, language }) {
  if (!language) return `Track ${Number(id) + 1}`;
  try {
    return new Intl.DisplayNames(document.documentElement.lang, { type: 'language' }).of(language) ?? language;
  } catch {
    return language;
  }
}

/** A bitrate in bit/s for people. */
export function bitrate(value) {
  if (!value) return 'bitrate unknown';
  return value >= 1e6 ? `${(value / 1e6).toFixed(1)} Mbit/s` : `${Math.round(value / 1e3)} kbit/s`;
}

/** Who takes a stream: viewers, and what this server makes of it, such as pushes and recordings. */
export function watched({ viewers, outputs }) {
  const taken = outputs === 1 ? '1 output' : `${outputs} outputs`;
  return outputs > 0 ? `${viewers} watching · ${taken}` : `${viewers} watching`;
}

/** Layers in one SSRC are told apart by a header extension that browsers only offer when asked (AV1 has nothing else). */
export function describe(transceiver) {
  const all = transceiver.getHeaderExtensionsToNegotiate?.();
  const known = all?.find(({ uri }) => uri === DEPENDENCY);
  if (!known) return;
  known.direction = 'sendrecv';
  transceiver.setHeaderExtensionsToNegotiate(all);
}

/** The server refused: `status` is that of its answer, the message its sentence. */
export class Refused extends Error {
  constructor(status, message, retryAfter) {
    super(message.trim() || `The server answered ${status}.`);
    this.status = status;
    this.retryAfter = Number(retryAfter) || 0;
  }
}

/** One offer and answer, and the resource that they made. */
export class Session {
  #resource = null;
  #etag = null;
  #candidates = [];
  #events = null;
  #sending = Promise.resolve();

  constructor(pc) {
    this.pc = pc;
    pc.addEventListener('icecandidate', ({ candidate }) => {
      if (candidate) this.#trickle(candidate);
    });
  }

  get resource() {
    return this.#resource;
  }

  /** Sends the offer to `url` and takes the answer. */
  async open(url) {
    if (hasServers) await this.#findServers(url);
    const offer = await this.pc.createOffer();
    offer.sdp = stereo(offer.sdp);
    await this.pc.setLocalDescription(offer);
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'Content-Type': 'application/sdp' },
      body: this.pc.localDescription.sdp,
    });
    const text = await response.text();
    if (response.status !== 201) {
      throw new Refused(response.status, text, response.headers.get('Retry-After'));
    }
    this.#resource = new URL(response.headers.get('Location'), response.url).href;
    this.#etag = response.headers.get('ETag');
    await this.pc.setRemoteDescription({ type: 'answer', sdp: text });
    for (const candidate of this.#candidates.splice(0)) this.#trickle(candidate);
  }

  /** Relays come with credentials of this session's own (RFC 9725, section 4.6): they are asked for before it gathers. */
  async #findServers(url) {
    const response = await fetch(url, { method: 'OPTIONS' }).catch(() => null);
    const iceServers = iceServersOf(response?.headers.get('Link') ?? '');
    // Who may not, or finds nobody, is told so by what comes next.
    if (iceServers.length > 0) this.pc.setConfiguration({ ...this.pc.getConfiguration(), iceServers });
  }

  /** Candidates go one after the other; a lost one is no loss, since the server finds us by our checks. */
  #trickle(candidate) {
    if (!this.#resource) {
      this.#candidates.push(candidate);
      return;
    }
    const { usernameFragment } = candidate;
    const pwd = this.pc.localDescription.sdp.match(/a=ice-pwd:(.*)/)?.[1]?.trim();
    const body = `a=ice-ufrag:${usernameFragment}\r\na=ice-pwd:${pwd}\r\n`
      + `m=audio 9 RTP/AVP 0\r\na=mid:${candidate.sdpMid}\r\na=${candidate.candidate}\r\n`;
    this.#sending = this.#sending.then(() => this.#patch(body)).catch(() => {});
  }

  #patch(body) {
    return fetch(this.#resource, {
      method: 'PATCH',
      headers: { 'Content-Type': 'application/trickle-ice-sdpfrag', 'If-Match': this.#etag ?? '*' },
      body,
    });
  }

  /**
   * Asks for what to see: `encodingId` keeps to a layer, `maxHeight` and `maxBitrate` (bit/s) cap it, `maxTemporalLayerId`
   * leaves the temporal layers above it out, `video: false` pauses the pictures, `audio` is the track or language to hear.
   * What is left out is not asked for.
   */
  async want(wishes) {
    const response = await fetch(`${this.#resource}/layer`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(wishes),
    });
    if (!response.ok) throw new Refused(response.status, await response.text());
  }

  /** Calls back with each of the server's events, by name, until the session is closed. */
  listen(handlers) {
    const source = new EventSource(`${this.#resource}/sse`);
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, ({ data }) => handle(JSON.parse(data)));
    }
    this.#events = source;
  }

  /** The server's figures of this session. */
  async figures() {
    const response = await fetch(this.#resource);
    return response.ok ? response.json() : null;
  }

  /** Ends it on this side only: the server's side may still be there, and be taken over. */
  abandon() {
    this.#events?.close();
    this.pc.close();
    this.#resource = null;
  }

  /** Ends it on both sides, also while the page goes away. */
  close() {
    this.#events?.close();
    this.pc.close();
    if (this.#resource) fetch(this.#resource, { method: 'DELETE', keepalive: true }).catch(() => {});
    this.#resource = null;
  }
}

/** Those that `Link` headers name. */
export function iceServersOf(links) {
  return [...links.matchAll(/<([^>]*)>((?:\s*;\s*[\w-]+="[^"]*")*)/g)].flatMap(([, urls, parameters]) => {
    const of = Object.fromEntries([...parameters.matchAll(/([\w-]+)="([^"]*)"/g)].map(([, name, value]) => [name, value]));
    if (of.rel !== 'ice-server') return [];
    return of.username ? [{ urls, username: of.username, credential: of.credential }] : [{ urls }];
  });
}

/** Browsers decode Opus to one channel unless their own description asks for two. */
function stereo(sdp) {
  const pt = sdp.match(/a=rtpmap:(\d+) opus\/48000\/2/i)?.[1];
  return pt ? sdp.replace(new RegExp(`(a=fmtp:${pt} [^\r\n]*)`), '$1;stereo=1') : sdp;
}
