// Keeps the studio on the air: goes live by WHIP and comes back by itself when anything in between goes away. Called by
// studio.js, by whose beat it lives: timers of hidden pages are late.

import { sentence, withToken } from './page.js';
import { Sender } from './sender.js';
import { Refused } from './signalling.js';

const FIRST_WAIT = 500;
const LONGEST_WAIT = 8000;
/** How long a connection may take to be made, and to be interrupted. */
const CONNECT = 15000;
const INTERRUPTED = 4000;
/** How often the server is asked whether it still has the session. */
const ASK = 1500;
/** Somebody else in our place is believed after so many refusals: a server may take a moment to let go of us. */
const REFUSALS = 3;
const SESSION = /^\/session\/[0-9a-f]{32}$/;

export class Live {
  /** `off`, `connecting`, `live`, or `waiting` for the next try. */
  state = 'off';
  /** What is to be said about it. */
  message = 'Not live';
  isError = false;
  /** Somebody else publishes this stream. */
  taken = false;
  /** When it went live, on the page's clock, through all interruptions. */
  since = null;
  sender = null;
  reconnects = 0;
  #stream;
  #media;
  #options;
  #changed;
  #wait = FIRST_WAIT;
  #due = 0;
  #interrupted = null;
  #asked = 0;
  #asking = false;
  #refusals = 0;

  /** `options()` are the sender's, asked for each connection; `changed()` is called after each change. */
  constructor(stream, media, options, changed) {
    this.#stream = stream;
    this.#media = media;
    this.#options = options;
    this.#changed = changed;
  }

  async start(takeover = false) {
    if (this.state !== 'off') return;
    this.#wait = FIRST_WAIT;
    this.#refusals = REFUSALS;
    this.reconnects = 0;
    await this.#open(takeover);
  }

  /** Ends it, here and at the server. */
  end(message = 'Not live', isError = false) {
    this.sender?.close();
    this.sender = null;
    this.#remember(null);
    this.since = null;
    this.#become('off', message, isError);
  }

  #become(state, message, isError = false, taken = false) {
    Object.assign(this, { state, message, isError, taken });
    this.#changed();
  }

  async #open(takeover = false) {
    const sender = new Sender(this.#media, this.#options());
    this.sender = sender;
    this.#interrupted = null;
    this.#due = performance.now() + CONNECT;
    this.#become('connecting', this.since === null ? 'Connecting…' : 'Connecting again…');
    sender.pc.addEventListener('connectionstatechange', () => this.#connection(sender));
    try {
      const replace = takeover || await this.#oursIsThere();
      if (this.sender !== sender) return;
      await sender.open(withToken(`/whip/${this.#stream}${replace ? '?takeover=1' : ''}`));
      if (this.sender !== sender) {
        sender.close();
        return;
      }
      this.#remember(new URL(sender.session.resource).pathname);
    } catch (error) {
      if (this.sender === sender) this.#refused(error);
      else sender.close();
    }
  }

  #refused(error) {
    if (!(error instanceof Refused)) {
      // fetch() fails with a TypeError where nobody answers.
      const offline = error instanceof TypeError;
      if (!offline) console.error(error);
      this.#again(offline ? 'The server does not answer.' : error.message);
      return;
    }
    this.#refusals += error.status === 409 ? 1 : 0;
    const taken = error.status === 409 && this.#refusals >= REFUSALS;
    const final = taken || (error.status < 500 && ![404, 408, 409, 429].includes(error.status));
    if (!final) {
      this.#again(error.message, error.retryAfter);
      return;
    }
    this.sender?.close();
    this.sender = null;
    this.since = null;
    const message = taken ? 'Somebody else publishes this stream. Take over to replace them.' : error.message;
    this.#become('off', message, true, taken);
  }

  #connection(sender) {
    if (this.sender !== sender) return;
    const { connectionState } = sender.pc;
    this.#interrupted = connectionState === 'disconnected' ? performance.now() : null;
    if (connectionState === 'connected') {
      this.#wait = FIRST_WAIT;
      this.#refusals = 0;
      this.since ??= performance.now();
      this.#asked = performance.now();
      this.#become('live', 'Live');
    } else if (connectionState === 'disconnected') {
      this.#become(this.state, 'The connection is interrupted…', true);
    } else if (connectionState === 'failed') {
      this.#again('The connection was lost.');
    }
  }

  /** Begins anew after a pause that grows from try to try. */
  #again(reason, seconds = 0) {
    // Not ended at the server: until the next try it keeps our place against others.
    this.sender?.session.abandon();
    this.sender = null;
    this.reconnects += 1;
    this.#due = performance.now() + Math.max(this.#wait, seconds * 1000);
    this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT);
    this.#become('waiting', `${sentence(reason)} Trying again…`, true);
  }

  /** To be called some times a second. */
  async beat() {
    const now = performance.now();
    if (this.state === 'waiting' && now >= this.#due) {
      await this.#open();
    } else if (this.state === 'connecting' && now >= this.#due) {
      this.#again('No media gets to the server: its UDP ports may be closed.');
    } else if (this.#interrupted !== null && now - this.#interrupted > INTERRUPTED) {
      this.#again('The connection was lost.');
    } else if (this.state === 'live' && now - this.#asked > ASK && !this.#asking) {
      await this.#ask(this.sender);
    }
  }

  /** A session that was ended, or a server that began anew, does not show in the connection for half a minute. */
  async #ask(sender) {
    this.#asking = true;
    try {
      const figures = await sender.session.figures();
      if (!figures && this.sender === sender) this.#again('The server has ended the session.');
    } catch {
      // Nobody answers: as long as media flows that does not matter.
    } finally {
      this.#asking = false;
      this.#asked = performance.now();
    }
  }

  get #key() {
    return `gst-sfu.session.${this.#stream}`;
  }

  /** In this tab only, also after a crash: another one must not take over from this. */
  #remember(path) {
    try {
      if (path) sessionStorage.setItem(this.#key, path);
      else sessionStorage.removeItem(this.#key);
    } catch {
      // Without storage the server's own patience with silent publishers must do.
    }
  }

  /** Whether the server still has the session that we lost: only that may be taken over without asking. */
  async #oursIsThere() {
    let path = null;
    try {
      path = sessionStorage.getItem(this.#key);
    } catch {
      return false;
    }
    if (!SESSION.test(path ?? '')) return false;
    const response = await fetch(path);
    return response.ok;
  }
}
