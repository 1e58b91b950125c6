// A participant of a room, by LiveKit's client protocol (v0) in JSON: the WebSocket, a connection for what is sent and one for
// what is received, and who is there with which tracks. Knows no elements of a page. Called by room.js.
//
// Events: `changed` (somebody or a track came, went or changed), `left` (who left by choice or was removed), `speakers`, `text` ({ from, words }), `state` ('joining',
// 'joined', 'away' while it comes back, 'over'), whose sentence is `why`.

import { Texts, write } from './packets.js';
import { withToken } from './page.js';

/** Of each kind of track: its encodings, lowest first, as parts of its size with a bitrate in bit/s. */
const SOURCES = {
  CAMERA: { encodings: [['q', 4, 150000], ['h', 2, 500000], ['f', 1, 1700000]] },
  MICROPHONE: {},
  SCREEN_SHARE: { encodings: [['q', 2, 600000], ['f', 1, 2500000]] },
  SCREEN_SHARE_AUDIO: {},
};
/** What the protocol calls layers, by RID. */
const QUALITY = { q: 'LOW', h: 'MEDIUM', f: 'HIGH' };
/** An answer of the server is waited for so long, in ms. */
const PATIENCE = 10000;
/** How often is looked whether a text has arrived, in ms. */
const LOOK = 200;
/** Between tries to come back, in ms; then it is over. */
const PAUSES = [300, 1000, 2000, 4000, 4000, 8000, 8000, 8000, 8000, 8000];

/** Why a server sends somebody away, for people. */
const REASONS = {
  DUPLICATE_IDENTITY: 'You have joined in another place.',
  SERVER_SHUTDOWN: 'The server has ended.',
  PARTICIPANT_REMOVED: 'You were removed from this room.',
  ROOM_DELETED: 'The room was closed.',
  ROOM_CLOSED: 'The room was closed.',
};

const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** Ends the wait for what never comes. */
function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`the server did not answer ${what}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** What lets somebody into a room: `{ token, identity, canPublish }`. The door decides; the token is for the room alone. */
export async function entry(room, name) {
  const response = await fetch(withToken(`/rtc/guest/${room}`), {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ name }),
  });
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

/** What is 0 is not in the JSON: neither is the type of sound, nor a source that is not known. */
const isVideo = ({ type }) => type === 'VIDEO';
const isSound = ({ type = 'AUDIO' }) => type === 'AUDIO';
const isUnknown = ({ source = 'UNKNOWN' }) => source === 'UNKNOWN';

/**
 * A participant's tracks by what they are shown as: the camera or null, further pictures, screens, and all that is heard. Clients other
 * than browsers publish most of theirs without a source.
 */
export function sorted({ tracks = [] }) {
  const videos = tracks.filter(isVideo);
  const screens = videos.filter(({ source }) => source === 'SCREEN_SHARE');
  const camera = videos.find(({ source }) => source === 'CAMERA') ?? videos.find(isUnknown) ?? null;
  const further = videos.filter((track) => track !== camera && !screens.includes(track));
  return { camera, further, screens, sounds: tracks.filter(isSound) };
}

export class RoomClient extends EventTarget {
  /** What the server says of this participant, and of the others by their sid. */
  me = null;
  others = new Map();
  state = 'joining';
  why = '';
  #token;
  #socket = null;
  #sub = null;
  #pub = null;
  #config = {};
  #work = Promise.resolve();
  /** How each job that is not over, or who waits for a text, would be told that its connection was lost. */
  #jobs = new Set();
  /** Until it has come back. */
  #returning = null;
  #offers = 0;
  #candidates = { PUBLISHER: [], SUBSCRIBER: [] };
  #waits = new Map();
  #channel = null;
  #texts = new Texts();
  #timer = 0;
  #heard = 0;
  /** What is to be published, by source, whatever becomes of connections: the track and whether it is muted. */
  #wants = new Map();
  /** What is published, by source: the track, its transceiver and its sid. */
  #own = new Map();
  /** M-lines of what was published, by source: used again. */
  #idle = new Map();
  /** What has come, by the track's sid. */
  #media = new Map();
  #settings = new Map();

  constructor(token) {
    super();
    this.#token = token;
  }

  /** Joins; throws why not. */
  async join() {
    try {
      await this.#connect();
    } catch (error) {
      this.#leave();
      throw error;
    }
  }

  /** Leaves, also while the page goes away. */
  leave() {
    this.#send({ leave: { reason: 'CLIENT_INITIATED' } });
    this.#over('You have left.');
  }

  /** What it may do now, as the server says: whoever moderates may change that at any time. */
  get may() {
    const { canPublish = false, canPublishSources = [], canPublishData = false, canUpdateMetadata = false } = this.me?.permission ?? {};
    return {
      publish: (source) => canPublish && (canPublishSources.length === 0 || canPublishSources.includes(source)),
      write: canPublishData,
      change: canUpdateMetadata,
    };
  }

  /** The sid of what is published of a source, or null. */
  sidOf(source) {
    return this.#own.get(source)?.sid ?? null;
  }

  /** The track that came, or null until it does. */
  mediaOf(sid) {
    return this.#media.get(sid) ?? null;
  }

  /** Sends this track in place of what was sent of that source; with null it is muted, a screen ends. While it comes back that waits. */
  async setTrack(source, track) {
    this.#wants.set(source, { track, muted: !track });
    for (;;) {
      await this.#returning;
      if (this.state === 'over') return;
      try {
        await this.#run(() => this.#apply(source));
        return;
      } catch (error) {
        // Of a connection that was lost it is no fault.
        if (!this.#returning) throw error;
      }
    }
  }

  /** Tells others, who see and hear nothing of it either way. */
  setMuted(source, muted) {
    const wanted = this.#wants.get(source);
    if (!wanted) return;
    wanted.muted = muted;
    this.#tellMuted(source);
  }

  #tellMuted(source) {
    const [wanted, own] = [this.#wants.get(source), this.#own.get(source)];
    if (!wanted || !own || own.muted === wanted.muted) return;
    own.muted = wanted.muted;
    this.#send({ mute: { sid: own.sid, muted: own.muted } });
  }

  /** How large a track is shown, in pixels; not at all with `null`. Told when it changes. */
  setSize(sid, size) {
    const setting = size ? { width: Math.round(size.width), height: Math.round(size.height) } : { disabled: true };
    const told = JSON.stringify(setting);
    if (this.#settings.get(sid) === told) return;
    this.#settings.set(sid, told);
    this.#send({ trackSetting: { trackSids: [sid], ...setting } });
  }

  /** Attributes that all see; empty ones are taken away. */
  setAttributes(attributes) {
    const { metadata = '', name = '' } = this.me ?? {};
    this.#send({ updateMetadata: { metadata, name, attributes } });
  }

  /** To all others; throws where the connection was lost before it has arrived. */
  async sendText(words) {
    if (this.state !== 'joined') throw new Error('the connection was lost');
    await this.#unlessLost(this.#sendText(words));
  }

  async #sendText(words) {
    this.#publisher();
    if (this.#channel.readyState === 'connecting') {
      this.#enqueue(() => this.#offer());
      await within(PATIENCE, 'a data channel', new Promise((resolve) => {
        this.#channel.addEventListener('open', resolve, { once: true });
      }));
    }
    const [pc, before] = [this.#pub, await this.#received()];
    for (const packet of write(words)) this.#channel.send(packet);
    // The channel sends again what is not acknowledged, and tells nobody: as long as something comes from there it has a way.
    while (before !== undefined && pc === this.#pub && await this.#received() === before) await pause(LOOK);
  }

  /** Octets that have come on the connection for what is sent; nothing where a browser does not tell. */
  async #received() {
    const all = [...(await this.#pub.getStats()).values()];
    // Of all pairs: several may be nominated one after the other, of which only one is in use.
    const pairs = all.filter((s) => s.type === 'candidate-pair' && s.bytesReceived !== undefined);
    return pairs.length > 0 ? pairs.reduce((sum, s) => sum + s.bytesReceived, 0) : undefined;
  }

  #unlessLost(promise) {
    return new Promise((resolve, reject) => {
      this.#jobs.add(reject);
      promise.then(resolve, reject).finally(() => this.#jobs.delete(reject));
    });
  }

  /** Round trip in ms and what is lost, of both connections. */
  async figures() {
    const all = [];
    for (const pc of [this.#pub, this.#sub]) all.push(...(await pc?.getStats().catch(() => null) ?? new Map()).values());
    const pair = all.find((s) => s.type === 'candidate-pair' && s.nominated);
    return { rttMs: pair?.currentRoundTripTime ? pair.currentRoundTripTime * 1000 : null };
  }

  #tell(name, detail = null) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #become(state, why = '') {
    Object.assign(this, { state, why });
    this.#tell('state');
  }

  #over(why) {
    if (this.state === 'over') return;
    this.#leave();
    this.#become('over', why);
  }

  /** Takes all connections down. */
  #leave() {
    clearInterval(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    for (const pc of [this.#pub, this.#sub]) pc?.close();
    [this.#pub, this.#sub, this.#channel] = [null, null, null];
    const lost = new Error('the connection was lost');
    for (const { reject } of this.#waits.values()) reject(lost);
    // What a closed connection was asked for never ends: nothing is to wait for it.
    for (const reject of this.#jobs) reject(lost);
    this.#work = Promise.resolve();
    this.#jobs.clear();
    this.#waits.clear();
    this.#own.clear();
    this.#idle.clear();
    this.#media.clear();
    this.#settings.clear();
    this.#candidates = { PUBLISHER: [], SUBSCRIBER: [] };
  }

  #send(what) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(what));
  }

  async #connect() {
    const query = new URLSearchParams({
      access_token: this.#token, auto_subscribe: '1', adaptive_stream: '1', protocol: '17', sdk: 'js', json: '1',
    });
    const base = location.origin.replace(/^http/, 'ws');
    const socket = new WebSocket(`${base}/rtc?${query}`);
    this.#socket = socket;
    const joined = new Promise((resolve, reject) => {
      socket.addEventListener('close', () => reject(new Error('closed')), { once: true });
      socket.addEventListener('message', ({ data }) => {
        if (this.#socket !== socket) return;
        this.#heard = performance.now();
        const said = JSON.parse(data);
        if (said.join) resolve(said.join);
        this.#hear(said);
      });
    });
    await within(PATIENCE, 'the join', joined).catch(async (error) => {
      const response = await fetch(`/rtc/validate?${query}`).catch(() => null);
      const text = response && !response.ok ? await response.text() : error.message;
      throw new Error(text);
    });
    socket.addEventListener('close', () => { if (this.#socket === socket) this.#return(); });
    this.#become('joined');
  }

  /** After a connection was lost: joins anew as the same participant, with all that it published. */
  #return() {
    if (this.#returning) this.#leave();
    if (this.#returning || this.state !== 'joined') return;
    this.#returning = this.#comeBack().finally(() => { this.#returning = null; });
  }

  async #comeBack() {
    for (const ms of PAUSES) {
      this.#leave();
      if (this.state !== 'away') this.#become('away', 'The connection was lost; coming back…');
      this.others.clear();
      this.#tell('changed');
      await pause(ms);
      if (this.state === 'over') return;
      try {
        await this.#connect();
        await this.#publishAgain();
        if (this.#socket) return;
      } catch (error) {
        console.warn(error);
      }
      if (this.state === 'over') return;
    }
    this.#over('The connection was lost.');
  }

  async #publishAgain() {
    for (const [source, { track }] of this.#wants) {
      if (!this.#socket) return;
      if (track?.readyState === 'live' && this.may.publish(source)) await this.#enqueue(() => this.#apply(source));
    }
  }

  #beat(interval, patience) {
    clearInterval(this.#timer);
    this.#heard = performance.now();
    this.#timer = setInterval(() => {
      if (performance.now() - this.#heard > patience) this.#return();
      else this.#send({ ping: String(Date.now()) });
    }, interval);
  }

  #hear(said) {
    const [[kind, what]] = Object.entries(said);
    switch (kind) {
      case 'join': this.#joined(what); break;
      case 'offer': this.#enqueue(() => this.#answer(what)); break;
      case 'answer': this.#resolve('answer', what); break;
      case 'trickle': this.#candidate(what); break;
      case 'update': this.#update(what.participants ?? []); break;
      case 'trackPublished': this.#resolve(what.cid, what.track); break;
      case 'trackUnpublished': this.#unpublished(what.trackSid); break;
      case 'mute': this.#tell('muted', { source: this.#sourceOf(what.sid), muted: what.muted ?? false }); break;
      case 'speakersChanged': this.#speakers(what.speakers ?? []); break;
      case 'connectionQuality': this.#qualities(what.updates ?? []); break;
      case 'streamStateUpdate': this.#paused(what.streamStates ?? []); break;
      case 'subscribedQualityUpdate': this.#wanted(what); break;
      case 'refreshToken': this.#token = what; break;
      case 'requestResponse': this.#refused(what); break;
      case 'leave': this.#sent(what); break;
      default: break;
    }
  }

  #joined({ participant, otherParticipants = [], iceServers = [], pingInterval = 5, pingTimeout = 15 }) {
    this.me = participant;
    this.others.clear();
    this.#config = { iceServers: iceServers.filter(({ urls }) => urls?.length) };
    this.#beat(pingInterval * 1000, pingTimeout * 1000);
    this.#update(otherParticipants);
  }

  #sent({ action, reason }) {
    if (action === 'RECONNECT' || action === 'RESUME') this.#return();
    else this.#over(REASONS[reason] ?? 'The server has ended the connection.');
  }

  #update(participants) {
    for (const one of participants) {
      if (one.sid === this.me?.sid) Object.assign(this.me, one);
      else if (one.state === 'DISCONNECTED') this.#gone(one);
      else this.others.set(one.sid, { ...this.others.get(one.sid), tracks: [], attributes: {}, name: '', ...one });
    }
    this.#tell('changed');
  }

  #gone(one) {
    this.others.delete(one.sid);
    if (['CLIENT_INITIATED', 'PARTICIPANT_REMOVED'].includes(one.disconnectReason)) this.#tell('left', one);
  }

  #everybody() {
    return [this.me, ...this.others.values()].filter(Boolean);
  }

  #speakers(speakers) {
    for (const { sid, active = false, level = 0 } of speakers) {
      const one = this.#everybody().find((p) => p.sid === sid);
      if (one) Object.assign(one, { speaking: active, level });
    }
    this.#tell('speakers');
  }

  #qualities(updates) {
    for (const { participantSid, quality = 'POOR' } of updates) {
      const one = this.#everybody().find((p) => p.sid === participantSid);
      if (one) one.quality = quality;
    }
    this.#tell('changed');
  }

  /** The network has no room for a track, or has again. */
  #paused(states) {
    for (const { participantSid, trackSid, state } of states) {
      const track = this.others.get(participantSid)?.tracks.find(({ sid }) => sid === trackSid);
      if (track) track.paused = state === 'PAUSED';
    }
    this.#tell('changed');
  }

  #sourceOf(sid) {
    return [...this.#own].find(([, own]) => own.sid === sid)?.[0] ?? null;
  }

  /** It may not be published any more. Whoever goes on offering it is put out. */
  #unpublished(sid) {
    const source = this.#sourceOf(sid);
    if (!source) return;
    this.#wants.delete(source);
    this.#enqueue(() => this.#unpublish(source));
    this.#tell('changed');
  }

  async #unpublish(source) {
    const own = this.#own.get(source);
    if (!own) return;
    this.#own.delete(source);
    this.#idle.set(source, own);
    // Not stopped: it may be the m-line whose transport is that of all.
    own.transceiver.direction = 'inactive';
    await own.transceiver.sender.replaceTrack(null);
    await this.#offer();
  }

  #refused({ reason = 'OK', addTrack }) {
    if (addTrack && reason !== 'OK') this.#waits.get(addTrack.cid)?.reject(new Error(`the server says ${reason}`));
  }

  /** Nobody wants some layers now: they are not encoded. */
  #wanted({ trackSid, subscribedQualities = [] }) {
    const source = this.#sourceOf(trackSid);
    const sender = this.#own.get(source)?.transceiver.sender;
    if (!sender) return;
    const on = new Set(subscribedQualities.filter(({ enabled }) => enabled).map(({ quality = 'LOW' }) => quality));
    this.#enqueue(async () => {
      const parameters = sender.getParameters();
      for (const encoding of parameters.encodings) encoding.active = !encoding.rid || on.has(QUALITY[encoding.rid]);
      await sender.setParameters(parameters);
    });
  }

  /** One negotiation at a time, and none of a connection that was lost. */
  #run(job) {
    return new Promise((resolve, reject) => {
      this.#jobs.add(reject);
      const run = () => (this.#jobs.has(reject) ? job() : null);
      this.#work = this.#work.then(run).then(resolve, reject).finally(() => this.#jobs.delete(reject));
    });
  }

  /** The same, where nobody waits for how it ends. */
  #enqueue(job) {
    return this.#run(job).catch((error) => console.warn(error));
  }

  #expect(key) {
    return within(PATIENCE, key === 'answer' ? 'an offer' : 'a track', new Promise((resolve, reject) => {
      this.#waits.set(key, { resolve, reject });
    })).finally(() => this.#waits.delete(key));
  }

  #resolve(key, value) {
    this.#waits.get(key)?.resolve(value);
  }

  #connection(target) {
    const pc = new RTCPeerConnection(this.#config);
    pc.addEventListener('icecandidate', ({ candidate }) => {
      if (candidate) this.#send({ trickle: { candidateInit: JSON.stringify(candidate), target } });
    });
    pc.addEventListener('connectionstatechange', () => {
      if (pc.connectionState === 'failed' && [this.#pub, this.#sub].includes(pc)) this.#return();
    });
    return pc;
  }

  #candidate({ candidateInit, target = 'PUBLISHER' }) {
    if (!candidateInit) return;
    this.#candidates[target].push(JSON.parse(candidateInit));
    this.#enqueue(() => this.#addCandidates(target));
  }

  async #addCandidates(target) {
    const pc = target === 'PUBLISHER' ? this.#pub : this.#sub;
    if (!pc?.remoteDescription) return;
    for (const candidate of this.#candidates[target].splice(0)) await pc.addIceCandidate(candidate).catch(() => {});
  }

  async #answer({ sdp, id = 0 }) {
    if (!this.#sub) {
      this.#sub = this.#connection('SUBSCRIBER');
      this.#sub.addEventListener('track', (event) => this.#came(event));
      this.#sub.addEventListener('datachannel', ({ channel }) => {
        channel.binaryType = 'arraybuffer';
        channel.addEventListener('message', ({ data }) => {
          const said = this.#texts.read(data);
          if (said) this.#tell('text', said);
        });
      });
    }
    await this.#sub.setRemoteDescription({ type: 'offer', sdp });
    await this.#addCandidates('SUBSCRIBER');
    await this.#sub.setLocalDescription();
    this.#send({ answer: { type: 'answer', sdp: this.#sub.localDescription.sdp, id } });
  }

  /** The stream's id names the participant and the track: `PA_…|TR_…`. */
  #came({ track, streams: [stream] }) {
    const sid = stream?.id.split('|')[1];
    if (!sid) return;
    for (const [other, media] of this.#media) if (media === track) this.#media.delete(other);
    this.#media.set(sid, track);
    stream.addEventListener('removetrack', () => {
      if (this.#media.get(sid) === track) this.#media.delete(sid);
      this.#tell('changed');
    });
    this.#tell('changed');
  }

  #publisher() {
    if (this.#pub) return this.#pub;
    this.#pub = this.#connection('PUBLISHER');
    this.#pub.createDataChannel('_lossy', { ordered: false, maxRetransmits: 0 });
    this.#channel = this.#pub.createDataChannel('_reliable', { ordered: true });
    return this.#pub;
  }

  async #offer() {
    const pc = this.#publisher();
    const answer = this.#expect('answer');
    await pc.setLocalDescription();
    this.#offers += 1;
    this.#send({ offer: { type: 'offer', sdp: pc.localDescription.sdp, id: this.#offers } });
    await pc.setRemoteDescription({ type: 'answer', sdp: (await answer).sdp });
    await this.#addCandidates('PUBLISHER');
  }

  /** Makes what is published of a source what is to be. */
  async #apply(source) {
    const { track = null, muted = true } = this.#wants.get(source) ?? {};
    const own = this.#own.get(source);
    if (muted) this.#tellMuted(source);
    if (own && !track && source.startsWith('SCREEN')) {
      await this.#unpublish(source);
    } else if (own && own.track !== track) {
      own.track = track;
      await own.transceiver.sender.replaceTrack(track);
    } else if (!own && track) {
      await this.#publish(source, track);
    }
    this.#tellMuted(source);
  }

  async #publish(source, track) {
    const { width = 0, height = 0 } = track.getSettings();
    const { encodings = [] } = SOURCES[source];
    const layers = encodings.map(([rid, part, bitrate]) => ({
      quality: QUALITY[rid], width: Math.round(width / part), height: Math.round(height / part), bitrate,
    }));
    const type = track.kind === 'video' ? 'VIDEO' : 'AUDIO';
    // Browsers go on naming an m-line by its first track.
    const idle = this.#idle.get(source);
    const cid = idle?.cid ?? track.id;
    const published = this.#expect(cid);
    this.#send({ addTrack: { cid, name: source.toLowerCase(), type, source, width, height, layers } });
    const { sid } = await published;
    const transceiver = idle ? await this.#again(idle.transceiver, track) : this.#transceiver(track, encodings);
    this.#idle.delete(source);
    this.#own.set(source, { track, transceiver, sid, cid, muted: false });
    await this.#offer();
  }

  #transceiver(track, encodings) {
    const sendEncodings = encodings.map(([rid, scaleResolutionDownBy, maxBitrate]) => ({ rid, scaleResolutionDownBy, maxBitrate }));
    return this.#publisher().addTransceiver(track, {
      direction: 'sendonly', streams: [new MediaStream([track])], ...(sendEncodings.length > 0 && { sendEncodings }),
    });
  }

  /** An m-line that has carried the same source. */
  async #again(transceiver, track) {
    const { sender } = transceiver;
    await sender.replaceTrack(track);
    transceiver.direction = 'sendonly';
    const parameters = sender.getParameters();
    // Nobody wanted some, when it ended.
    for (const encoding of parameters.encodings) encoding.active = true;
    await sender.setParameters(parameters).catch((error) => console.warn(error));
    return transceiver;
  }
}
