// What the studio remembers in this browser. Whatever is found there instead counts as nothing. Called by studio.js.

import { SCENES } from './mixer.js';
import { BITRATE } from './sender.js';

const KEY = 'gst-sfu.studio';
/** Texts are for one line of a picture. */
const TEXT_MAX = 120;
/** A logo is kept as a data URL of 400x200 pixels at most; browsers give a page some 5 MB. */
const LOGO_MAX = 1500000;
const RATE = [100000, 50000000];

const text = (max) => (value) => typeof value === 'string' && value.length <= max;
const flag = (value) => typeof value === 'boolean';
const between = (low, high) => (value) => Number.isFinite(value) && value >= low && value <= high;

/** Each setting: what it is at first, and what it may be. */
const KNOWN = {
  /** Device ids; nothing is the browser's choice, `off` none. */
  camera: ['', text(512)],
  microphone: ['', text(512)],
  echo: [true, flag],
  microphoneGain: [1, between(0, 2)],
  screenGain: [1, between(0, 2)],
  muted: [false, flag],
  scene: ['camera', (value) => SCENES.some(({ id }) => id === value)],
  first: ['', text(TEXT_MAX)],
  second: ['', text(TEXT_MAX)],
  card: ['Be right back', text(TEXT_MAX)],
  lowerThird: [false, flag],
  logo: [false, flag],
  image: ['', (value) => text(LOGO_MAX)(value) && (value === '' || value.startsWith('data:image/'))],
  bitrate: [BITRATE, between(...RATE)],
  codec: ['', text(32)],
  simulcast: [true, flag],
};

function read() {
  try {
    return Object(JSON.parse(localStorage.getItem(KEY)));
  } catch {
    return {};
  }
}

/** What is remembered, complete and within bounds. */
export function load() {
  const found = read();
  const entries = Object.entries(KNOWN).map(([name, [first, allowed]]) => {
    const good = Object.hasOwn(found, name) && allowed(found[name]);
    return [name, good ? found[name] : first];
  });
  return Object.fromEntries(entries);
}

/** Remembers, where storage is neither full nor forbidden: the studio works without. */
export function save(settings) {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // As said.
  }
}
