// Cameras, microphones and the screen: what there is, which one is open, and what to do when a browser refuses. Called
// by studio.js, room.js and publisher.js.

import { byId } from './page.js';

const VIDEO = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
/** The choice of none. */
export const OFF = 'off';

const NAMES = { videoinput: 'camera', audioinput: 'microphone', screen: 'screen' };

/** Why nothing can be captured in this page at all, or null. */
export function obstacle() {
  if (navigator.mediaDevices?.getUserMedia) return null;
  return window.isSecureContext
    ? 'This browser gives pages no camera and no microphone: use a current Chrome, Edge, Firefox or Safari.'
    : 'Browsers give a camera and a microphone only to pages that came over HTTPS: open this page by https://, or on '
      + 'the server itself as http://localhost.';
}

/** What to do when a device was refused. */
function sentence(error, kind) {
  const name = NAMES[kind];
  switch (error.name) {
    case 'NotAllowedError':
    case 'SecurityError':
      return kind === 'screen'
        ? 'The screen is not shared: press “Share screen” again and choose what to show.'
        : `The browser does not let this page use the ${name}: allow it beside the address, then press “Try again”.`;
    case 'NotFoundError':
    case 'OverconstrainedError':
      return `There is no ${name}: plug one in, and it is used at once.`;
    case 'NotReadableError':
    case 'AbortError':
      return `The ${name} does not start: close other programs that use it, then press “Try again”.`;
    default:
      return `The ${name} does not work (${error.message}): choose another one.`;
  }
}

function stop(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}

/** A camera or a microphone by choice, which comes and goes. */
export class Device {
  /** The open stream, or null. */
  stream = null;
  /** Why it is not open, as a sentence, or null. */
  problem = null;
  /** The chosen id; nothing is the browser's choice. */
  wanted = '';
  #kind;
  #constraints;
  #changed;
  #turn = 0;

  /** `constraints()` are asked each time; `changed()` is called after each change. */
  constructor(kind, constraints, changed) {
    this.#kind = kind;
    this.#constraints = constraints;
    this.#changed = changed;
  }

  get open() {
    return this.stream !== null;
  }

  /** The id of what is open. */
  get id() {
    return this.stream?.getTracks()[0].getSettings().deviceId ?? '';
  }

  /** Opens what was chosen; the last call counts. */
  async choose(id) {
    this.#turn += 1;
    const turn = this.#turn;
    this.wanted = id;
    // First, since many a phone opens only one camera at a time.
    stop(this.stream);
    this.stream = null;
    this.problem = null;
    if (id === OFF) {
      this.#changed();
      return;
    }
    try {
      const stream = await this.#request(id);
      if (turn !== this.#turn) {
        stop(stream);
        return;
      }
      this.stream = stream;
      stream.getTracks()[0].addEventListener('ended', () => this.#gone(stream));
    } catch (error) {
      if (turn !== this.#turn) return;
      this.problem = sentence(error, this.#kind);
    }
    this.#changed();
  }

  async #request(id) {
    const rest = this.#constraints();
    const ask = (one) => {
      const wish = one ? { ...rest, deviceId: { exact: one } } : rest;
      return navigator.mediaDevices.getUserMedia(this.#kind === 'videoinput' ? { video: wish } : { audio: wish });
    };
    try {
      return await ask(id);
    } catch (error) {
      // What was remembered may be elsewhere today: another is better than none.
      if (id && ['OverconstrainedError', 'NotFoundError'].includes(error.name)) return ask('');
      throw error;
    }
  }

  #gone(stream) {
    if (this.stream !== stream) return;
    this.stream = null;
    this.problem = `The ${NAMES[this.#kind]} has gone: plug it in again, or choose another one.`;
    this.#changed();
  }

  /** After a change of what is plugged in: takes what was wanted and was not there. */
  async plugged(devices) {
    const own = devices.filter(({ kind }) => kind === this.#kind);
    const back = this.wanted && this.id !== this.wanted && own.some(({ deviceId }) => deviceId === this.wanted);
    if (this.wanted !== OFF && own.length > 0 && (!this.open || back)) await this.choose(this.wanted);
  }

  /** Fills a menu with what there is. */
  fill(menu, devices) {
    const name = NAMES[this.#kind];
    const own = devices.filter(({ kind, deviceId }) => kind === this.#kind && deviceId);
    const options = own.map(({ label, deviceId }, n) => new Option(label || `${name} ${n + 1}`, deviceId));
    if (!this.open) options.unshift(new Option(`choose a ${name}`, ''));
    menu.replaceChildren(...options, new Option(`no ${name}`, OFF));
    menu.value = this.wanted === OFF ? OFF : this.id;
    if (menu.selectedIndex < 0) menu.selectedIndex = 0;
  }
}

export const camera = (changed) => new Device('videoinput', () => VIDEO, changed);

export const microphone = (echoCancellation, changed) => new Device(
  'audioinput',
  () => ({ echoCancellation: echoCancellation() }),
  changed,
);

/** All devices, or none where they cannot be asked for. */
async function devices() {
  return navigator.mediaDevices?.enumerateDevices().catch(() => []) ?? [];
}

/** Fills the menus `camera` and `microphone`, and returns all devices. */
export async function fillMenus(cam, mic) {
  const all = await devices();
  cam.fill(byId('camera'), all);
  mic.fill(byId('microphone'), all);
  return all;
}

/** The screen, shared or not. */
export class Screen {
  stream = null;
  problem = null;
  #changed;
  #asking = false;

  constructor(changed) {
    this.#changed = changed;
  }

  /** Phones share no screen. */
  static get possible() {
    return Boolean(navigator.mediaDevices?.getDisplayMedia);
  }

  async toggle() {
    if (this.#asking) return;
    if (this.stream) {
      this.#end();
      return;
    }
    this.#asking = true;
    try {
      const stream = await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: 30 }, audio: true });
      this.problem = null;
      this.stream = stream;
      stream.getVideoTracks()[0].addEventListener('ended', () => { if (this.stream === stream) this.#end(); });
    } catch (error) {
      this.problem = sentence(error, 'screen');
    } finally {
      this.#asking = false;
    }
    this.#changed();
  }

  #end() {
    stop(this.stream);
    this.stream = null;
    this.#changed();
  }
}
