// The studio's guests: people in the room of the same name, who can be put into the programme. They hear the studio and one
// another, and see when they are on air. Called by studio.js.

import { attach, byId, element, plain, withToken } from './page.js';
import { RoomClient, entry, sorted } from './room-client.js';

/** What a guest is shown at, in pixels: in the list, and in the programme. */
const SMALL = { width: 320, height: 180 };
const LARGE = { width: 1280, height: 720 };
/** Whose connection was lost, or the studio's, is on air again when it comes back within this time, in ms. */
const KEPT = 30000;

const place = (sid) => `guest ${sid}`;
const voicePlace = (sid, { id }) => `${place(sid)} ${id}`;

export class Guests {
  client = null;
  /** The sids of those who are on air and here, in the order in which they were put there. */
  onAir = [];
  /** Who is to be on air, by identity, and since when it is not here: sids are new after each return. */
  #kept = new Map();
  #room;
  #mixer;
  #sound;
  #rows = new Map();
  /** What of a guest is in the programme. */
  #plugged = new Map();
  #opening = false;

  constructor(room, mixer, sound) {
    this.#room = room;
    this.#mixer = mixer;
    this.#sound = sound;
    byId('guests-open').addEventListener('click', () => (this.client ? this.close() : this.open()));
    byId('guests-link').addEventListener('click', () => this.#copy());
    const talk = byId('talkback');
    const set = (on) => {
      talk.setAttribute('aria-pressed', String(on));
      sound.talking = on;
    };
    talk.addEventListener('click', () => set(talk.getAttribute('aria-pressed') !== 'true'));
    this.#show('');
  }

  async open() {
    if (this.#opening) return;
    this.#opening = true;
    this.#say('Opening…');
    try {
      const client = new RoomClient(await this.#ticket());
      await client.join();
      client.addEventListener('changed', () => this.#refresh());
      client.addEventListener('left', ({ detail: { identity } }) => this.#kept.delete(identity));
      client.addEventListener('state', () => this.#stateChanged());
      this.client = client;
      this.#sound.resume();
      client.setAttributes({ role: 'studio' });
      this.#refresh();
      await client.setTrack('MICROPHONE', this.#sound.backTrack);
    } catch (error) {
      this.#show(error.message);
    } finally {
      this.#opening = false;
    }
  }

  close() {
    this.client?.leave();
  }

  async #ticket() {
    const { token, canPublish } = await entry(this.#room, 'Studio');
    if (!canPublish) throw new Error('Guests need the permission to publish here.');
    return token;
  }

  #stateChanged() {
    if (this.client?.state === 'over') {
      const { why } = this.client;
      this.client = null;
      this.#kept.clear();
      this.#refresh();
      this.#show(why);
    } else if (this.client?.state === 'joined') {
      this.client.setAttributes({ role: 'studio' });
      this.#tell();
    } else {
      this.#say(this.client?.why ?? '');
    }
  }

  #say(text) {
    byId('guests-state').textContent = text;
  }

  #show(text) {
    const open = this.client !== null;
    byId('guests-open').textContent = open ? 'Close the room' : 'Invite guests';
    for (const id of ['guests-link', 'talkback']) byId(id).hidden = !open;
    this.#say(text || (open ? 'Nobody is here yet: send the link.' : 'They come by a link, to this stream’s room.'));
  }

  async #copy() {
    const link = new URL(withToken(`/room/${this.#room}`), location.href).href;
    await navigator.clipboard.writeText(link).then(() => this.#say('The link is copied.'), () => this.#say(link));
  }

  #track(info) {
    return info && !info.muted ? this.client.mediaOf(info.sid) : null;
  }

  /** After anybody or anything has come, changed or gone. */
  #refresh() {
    const guests = [...this.client?.others.values() ?? []].filter(({ attributes }) => attributes?.role !== 'studio');
    const here = new Set(guests.map(({ sid }) => sid));
    const before = this.onAir.join(' ');
    this.onAir = this.#present(guests);
    for (const [sid, row] of this.#rows) {
      if (here.has(sid)) continue;
      row.video.srcObject = null;
      this.#hear(row, []);
      row.node.remove();
      this.#rows.delete(sid);
    }
    for (const guest of guests) this.#showGuest(guest);
    for (const sid of this.#plugged.keys()) if (!this.onAir.includes(sid)) this.#unplug(sid);
    this.#mixer.onAir = this.onAir.map(place);
    if (this.onAir.join(' ') !== before) this.#tell();
    const count = guests.length === 1 ? '1 guest' : `${guests.length} guests`;
    this.#show(guests.length > 0 ? `${count}, ${this.onAir.length} on air` : '');
  }

  /** Of those who are to be on air, the sids of who is here. */
  #present(guests) {
    const now = performance.now();
    for (const [identity, since] of this.#kept) {
      const isHere = guests.some((guest) => guest.identity === identity);
      if (since !== null && now - since > KEPT) this.#kept.delete(identity);
      else this.#kept.set(identity, isHere ? null : since ?? now);
    }
    // Of a connection that is replaced the other one is told of first: the newest counts.
    return [...this.#kept.keys()].map((identity) => guests.findLast((guest) => guest.identity === identity)?.sid).filter(Boolean);
  }

  #showGuest(guest) {
    const { sid } = guest;
    if (!this.#rows.has(sid)) this.#rows.set(sid, this.#row(sid));
    const row = this.#rows.get(sid);
    const { camera, sounds } = sorted(guest);
    const picture = this.#track(camera);
    const voices = sounds.map((info) => this.#track(info)).filter(Boolean);
    const on = this.onAir.includes(sid);
    const name = plain(guest.name || guest.identity);
    row.name.textContent = guest.attributes?.hand ? `${name} ✋` : name;
    row.button.textContent = on ? 'On air' : 'Show';
    row.button.setAttribute('aria-pressed', String(on));
    row.button.setAttribute('aria-label', `${on ? 'Take away' : 'Show'} ${name}`);
    attach(row.video, picture);
    this.#hear(row, voices);
    if (camera) this.client.setSize(camera.sid, on ? LARGE : SMALL);
    if (on) this.#plug(sid, picture, voices);
  }

  /** One element each: of several tracks in one, some browsers play the first alone. */
  #hear({ node, audios }, voices) {
    for (const [track, audio] of audios) {
      if (voices.includes(track)) continue;
      audio.srcObject = null;
      audio.remove();
      audios.delete(track);
    }
    for (const track of voices) {
      if (audios.has(track)) continue;
      const audio = document.createElement('audio');
      audio.autoplay = true;
      attach(audio, track);
      node.append(audio);
      audios.set(track, audio);
    }
  }

  #row(sid) {
    const [node, video] = ['li', 'video'].map((tag) => document.createElement(tag));
    Object.assign(video, { muted: true, autoplay: true, playsInline: true });
    const [name, button] = [element('span', ''), element('button', 'Show')];
    button.addEventListener('click', () => this.toggle(sid));
    node.append(video, name, button);
    byId('guests').append(node);
    return { node, video, audios: new Map(), name, button };
  }

  /** Puts a guest on air, or takes it away. */
  toggle(sid) {
    const identity = this.client?.others.get(sid)?.identity;
    if (!identity) return;
    if (!this.#kept.delete(identity)) this.#kept.set(identity, null);
    this.#refresh();
  }

  /** The tally light is an attribute that everybody in the room sees. */
  #tell() {
    this.client?.setAttributes({ onair: this.onAir.join(' ') });
  }

  #plug(sid, picture, voices) {
    const before = this.#plugged.get(sid) ?? { picture: null, voices: [] };
    this.#plugged.set(sid, { picture, voices });
    if (before.picture !== picture) this.#mixer.plug(place(sid), picture && new MediaStream([picture]));
    for (const track of before.voices) if (!voices.includes(track)) this.#sound.remove(voicePlace(sid, track));
    for (const track of voices) if (!before.voices.includes(track)) this.#sound.plug(voicePlace(sid, track), new MediaStream([track]));
  }

  #unplug(sid) {
    this.#plug(sid, null, []);
    this.#plugged.delete(sid);
  }
}
