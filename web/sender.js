// What the pages that publish share: one connection by WHIP with up to three layers, and the figures of what leaves.
// Called by publisher.js, and by live.js for the studio.

import { Session, describe } from './signalling.js';

/** The bitrate of the highest layer where nothing else is chosen, in bit/s. */
export const BITRATE = 2500000;
/** The layers, highest first: their size and their bitrate, as parts of the highest's. */
const LAYERS = [
  { rid: 'h', scale: 1, share: 1 },
  { rid: 'm', scale: 2, share: 0.36 },
  { rid: 'l', scale: 4, share: 0.1 },
];
const LOWEST = 100000;
/** Figures are the same for this long, in ms: over less time, rates would be noise. */
const FRESH = 500;
const CODECS = ['video/H264', 'video/VP8', 'video/VP9', 'video/AV1'];

const rate = (bitrate, { share }) => Math.max(LOWEST, Math.round(bitrate * share));

/** Fills a menu with the codecs that this browser sends and the server knows. */
export function fillCodecs(menu) {
  const mimeTypes = RTCRtpSender.getCapabilities('video').codecs.map((c) => c.mimeType);
  const offered = CODECS.filter((m) => mimeTypes.includes(m));
  menu.replaceChildren(...offered.map((m) => new Option(m.split('/')[1], m)));
}

/** One connection that sends a picture and, where there is one, a sound. */
export class Sender {
  #last = new Map();
  #stats = null;
  #video;

  /** `scalability` is a mode of WebRTC-SVC such as L1T2; without it the browser decides. */
  constructor(media, { codec, simulcast, bitrate = BITRATE, scalability = null }) {
    this.pc = new RTCPeerConnection();
    this.session = new Session(this.pc);
    const sendEncodings = simulcast
      ? LAYERS.map((layer) => ({ rid: layer.rid, maxBitrate: rate(bitrate, layer), scaleResolutionDownBy: layer.scale }))
      : [{ maxBitrate: bitrate }];
    if (scalability) sendEncodings.forEach((encoding) => { encoding.scalabilityMode = scalability; });
    const [video] = media.getVideoTracks();
    const [audio] = media.getAudioTracks();
    this.#video = this.pc.addTransceiver(video, { direction: 'sendonly', sendEncodings, streams: [media] });
    prefer(this.#video, codec);
    if (scalability) describe(this.#video);
    if (audio) this.pc.addTransceiver(audio, { direction: 'sendonly', streams: [media] });
  }

  open(url) {
    return this.session.open(url);
  }

  /** Ends it on both sides. */
  close() {
    this.session.close();
  }

  /** Another bitrate for the highest layer, and for the others in proportion. */
  async setBitrate(bitrate) {
    const { sender } = this.#video;
    const parameters = sender.getParameters();
    parameters.encodings.forEach((encoding, n) => { encoding.maxBitrate = rate(bitrate, LAYERS[n]); });
    await sender.setParameters(parameters);
  }

  /** What leaves: on each layer, highest first and sound last, and in all. Taken anew twice a second at most. */
  async stats() {
    if (this.#stats && performance.now() - this.#stats.at < FRESH) return this.#stats.figures;
    const at = performance.now();
    const figures = await this.#measure();
    this.#stats = { at, figures };
    return figures;
  }

  async #measure() {
    const report = await this.pc.getStats();
    const all = [...report.values()];
    const layers = all.filter((s) => s.type === 'outbound-rtp').map((s) => this.#layer(s));
    const rank = ({ kind, rid }) => (kind === 'video' ? LAYERS.findIndex((layer) => layer.rid === rid) : LAYERS.length);
    layers.sort((a, b) => rank(a) - rank(b));
    const remote = all.filter((s) => s.type === 'remote-inbound-rtp');
    const pair = all.find((s) => s.type === 'candidate-pair' && s.nominated) ?? {};
    const most = (values) => (values.length ? Math.max(...values) : null);
    const known = (key) => remote.map((s) => s[key]).filter((value) => value !== undefined);
    const trip = most(known('roundTripTime')) ?? pair.currentRoundTripTime ?? null;
    const pictures = layers.filter(({ kind }) => kind === 'video');
    return {
      state: this.pc.connectionState,
      bitrate: layers.reduce((sum, layer) => sum + layer.bitrate, 0),
      fps: most(pictures.map(({ fps }) => fps)) ?? 0,
      limitation: pictures.find(({ limitation }) => limitation !== 'none')?.limitation ?? 'none',
      rttMs: trip === null ? null : trip * 1000,
      loss: most(known('fractionLost')),
      layers,
    };
  }

  #layer(s) {
    const last = this.#last.get(s.id) ?? s;
    this.#last.set(s.id, s);
    const seconds = Math.max((s.timestamp - last.timestamp) / 1000, 0.001);
    return {
      kind: s.kind,
      rid: s.rid ?? '',
      width: s.frameWidth ?? 0,
      height: s.frameHeight ?? 0,
      fps: s.framesPerSecond ?? 0,
      bitrate: ((s.bytesSent - last.bytesSent) * 8) / seconds,
      pliCount: s.pliCount ?? 0,
      nackCount: s.nackCount ?? 0,
      limitation: s.qualityLimitationReason ?? 'none',
    };
  }
}

/** Puts one codec first; the server takes the first one that it knows. */
function prefer(transceiver, mimeType) {
  const all = RTCRtpSender.getCapabilities('video').codecs;
  const first = all.filter((c) => c.mimeType === mimeType);
  transceiver.setCodecPreferences?.([...first, ...all.filter((c) => c.mimeType !== mimeType)]);
}
