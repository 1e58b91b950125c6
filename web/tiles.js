// Who is in a room, as tiles: a camera or a face each, a screen beside it, and the sounds, which nobody sees. Called by room.js.

import { attach, byId, element, plain } from './page.js';
import { sorted } from './room-client.js';

const BARS = { EXCELLENT: 3, GOOD: 2, POOR: 1, LOST: 0 };
/** Columns that show so many tiles as large as can be, in a wide and in a tall window. */
const columns = (count, wide) => Math.ceil(Math.sqrt(wide ? count : count / 2.2));

/** One camera or screen. */
class Tile {
  node = element('figure', '', 'tile');
  #video = document.createElement('video');
  #face = element('div', '', 'face');
  #name = element('span', '');
  #note = element('span', '', 'note');
  #bars = element('span', '', 'bars');
  #hand = element('p', 'Hand raised', 'hand');

  constructor() {
    Object.assign(this.#video, { autoplay: true, muted: true, playsInline: true });
    const caption = element('figcaption', '', 'caption');
    this.#bars.setAttribute('role', 'img');
    for (let n = 0; n < 3; n += 1) this.#bars.append(document.createElement('i'));
    caption.append(this.#name, this.#note, this.#bars);
    this.node.append(this.#video, this.#face, caption, this.#hand);
  }

  show({ name, title, track, live, note, speaking, hand, quality, mine, screen }) {
    attach(this.#video, track);
    this.#face.hidden = live;
    this.#face.textContent = [...name.trim()][0]?.toUpperCase() ?? '?';
    this.#name.textContent = title;
    this.#note.textContent = note;
    this.#note.hidden = !note;
    this.#hand.hidden = !hand;
    const on = BARS[quality];
    this.#bars.hidden = on === undefined;
    this.#bars.classList.toggle('poor', on < 2);
    this.#bars.setAttribute('aria-label', `Connection ${(quality ?? '').toLowerCase()}`);
    [...this.#bars.children].forEach((bar, n) => bar.classList.toggle('on', n < on));
    this.node.classList.toggle('speaking', speaking);
    this.node.classList.toggle('mine', mine);
    this.node.classList.toggle('screen', screen);
  }

  /** In pixels of the screen, or null where nobody sees it. */
  size() {
    const { width, height } = this.node.getBoundingClientRect();
    if (document.hidden || width < 1) return null;
    return { width: width * devicePixelRatio, height: height * devicePixelRatio };
  }

  end() {
    this.#video.srcObject = null;
    this.node.remove();
  }
}

export class Tiles {
  /** Whether one is large, and the others in a strip. */
  speakerView = false;
  #root = byId('tiles');
  #strip = element('div', '', 'strip');
  #sounds = new Map();
  #tiles = new Map();
  #spoke = null;
  #sizes = new Map();

  /** `own(source)` is the track that this page sends. */
  constructor(client, own) {
    this.client = client;
    this.own = own;
    new ResizeObserver(() => this.#place()).observe(this.#root);
    document.addEventListener('visibilitychange', () => this.#tellSizes());
  }

  /** All anew, after anything has changed. */
  refresh() {
    const wanted = new Map();
    const { me, others } = this.client;
    for (const one of [...others.values()].sort((a, b) => Number(a.joinedAtMs ?? 0) - Number(b.joinedAtMs ?? 0))) {
      this.#want(wanted, one, false);
    }
    if (me) this.#want(wanted, me, true);
    for (const [key, { tile }] of this.#tiles) {
      if (!wanted.has(key)) {
        tile.end();
        this.#tiles.delete(key);
      }
    }
    for (const [key, what] of wanted) {
      if (!this.#tiles.has(key)) this.#tiles.set(key, { tile: new Tile() });
      Object.assign(this.#tiles.get(key), what).tile.show(what.looks);
    }
    this.#hear();
    this.#place();
  }

  /** Its screens, itself, and what else it shows. */
  #want(wanted, one, mine) {
    const name = plain(one.name || one.identity);
    const { camera, further, screens, sounds } = sorted(one);
    const want = (key, info, track, looks) => {
      const paused = info?.paused ? 'paused: little room' : '';
      const all = { name, track, mine, screen: false, speaking: false, hand: false, note: paused, live: Boolean(track) && (mine || !info.muted), ...looks };
      wanted.set(`${one.sid}/${key}`, { looks: all, sid: mine ? null : info?.sid, of: one.sid });
    };
    const media = (info, source) => (mine ? this.own(source) : info && this.client.mediaOf(info.sid));
    for (const info of screens) want(info.sid, info, media(info, 'SCREEN_SHARE'), { screen: true, title: `Screen of ${name}` });
    // What is false is not in the JSON.
    const silent = sounds.every(({ source, muted }) => Boolean(muted) || source === 'SCREEN_SHARE_AUDIO');
    want('CAMERA', camera, media(camera, 'CAMERA'), {
      title: mine ? `${name} (you)` : name, speaking: Boolean(one.speaking), hand: Boolean(one.attributes?.hand), quality: one.quality,
      ...(silent && !camera?.paused && { note: 'muted' }),
    });
    for (const info of further) want(info.sid, info, media(info), { title: info.name ? `${name}: ${plain(info.name)}` : name });
  }

  /** Who speaks is large. */
  spoke() {
    const loud = [...this.client.others.values()].filter(({ speaking }) => speaking).sort((a, b) => b.level - a.level);
    if (loud.length > 0 && !loud.some(({ sid }) => sid === this.#spoke)) this.#spoke = loud[0].sid;
    this.refresh();
  }

  #hear() {
    const wanted = new Map();
    for (const one of this.client.others.values()) {
      for (const { sid } of sorted(one).sounds) {
        const track = this.client.mediaOf(sid);
        if (track) wanted.set(track.id, track);
      }
    }
    for (const [id, audio] of this.#sounds) {
      if (wanted.has(id)) continue;
      audio.srcObject = null;
      audio.remove();
      this.#sounds.delete(id);
    }
    for (const [id, track] of wanted) {
      if (this.#sounds.has(id)) continue;
      const audio = document.createElement('audio');
      audio.autoplay = true;
      audio.srcObject = new MediaStream([track]);
      byId('sounds').append(audio);
      this.#sounds.set(id, audio);
    }
  }

  /** The large one: a screen, or who spoke last, or whoever is there. */
  #large() {
    const all = [...this.#tiles];
    return (all.find(([, { looks }]) => looks.screen && !looks.mine)
      ?? all.find(([, { of, looks }]) => of === this.#spoke && !looks.screen)
      ?? all.find(([, { looks }]) => !looks.mine) ?? all[0])?.[0];
  }

  #place() {
    const large = this.speakerView && this.#tiles.size > 1 ? this.#large() : null;
    this.#root.classList.toggle('speaker', large !== null);
    const { clientWidth, clientHeight } = this.#root;
    this.#root.style.setProperty('--columns', large ? 1 : columns(this.#tiles.size, clientWidth > clientHeight));
    const order = [];
    for (const [key, { tile }] of this.#tiles) {
      tile.node.classList.toggle('big', key === large);
      const place = large && key !== large ? this.#strip : this.#root;
      if (tile.node.parentNode !== place) place.append(tile.node);
      if (place === this.#root) order.push(tile.node);
    }
    if (large) order.push(this.#strip);
    else this.#strip.remove();
    order.forEach((node, n) => { if (this.#root.children[n] !== node) this.#root.insertBefore(node, this.#root.children[n] ?? null); });
    this.#tellSizes();
  }

  /** Layers are chosen by what is seen. */
  #tellSizes() {
    for (const { tile, sid } of this.#tiles.values()) if (sid) this.client.setSize(sid, tile.size());
  }

  end() {
    for (const { tile } of this.#tiles.values()) tile.end();
    this.#tiles.clear();
    for (const audio of this.#sounds.values()) audio.remove();
    this.#sounds.clear();
  }
}
