// The true latency: how old the picture is that the page shows, from its capture to the screen.
//
// Browsers tell each picture's RTP timestamp, and when it is shown. The server tells which timestamp a picture has that is
// captured now, and what time it is: the way there and back is halved, and the shortest of several ways counts.

const PERIOD = 10000;
/** At first a few times in a row, for a short way among them. */
const FIRST_PERIOD = 300;
const EXCHANGES = 6;
/** Pictures in a figure: one or two seconds. */
const SAMPLES = 45;
/** Before that many it is not told to the server. */
const SETTLED = 30;
/** Without a picture for this long there is no latency. */
const STALE = 3000;
/** The moment at which a picture is shown is known to about one period of the screen. */
const SCREEN = 17;
const TICKS = 90;

const TITLE = 'From the moment of capture (the pipeline\'s clock, the NDI timecode or the publisher\'s clock) '
  + 'to the moment at which this page shows the picture';

export class Latency {
  #session = null;
  #video;
  #label;
  #samples = [];
  #shown = 0;
  #exchanges = [];
  #timer = null;
  #reported = 0;
  /** How far off figures may be, in ms. */
  #error = SCREEN;

  /** Measures what `video` shows and writes it into `label`. */
  constructor(video, label) {
    this.#video = video;
    this.#label = label;
    label.title = TITLE;
    this.#write();
    // Without this the browser does not tell what it shows.
    if (!video.requestVideoFrameCallback) return;
    this.#watch();
    setInterval(() => this.#write(), 1000);
  }

  /** In milliseconds; null where it is not known. */
  get ms() {
    if (this.#samples.length === 0 || performance.now() - this.#shown > STALE) return null;
    const sorted = [...this.#samples].sort((a, b) => a - b);
    const median = sorted[Math.floor(sorted.length / 2)];
    // Firefox at times tells a picture's timestamp with the time of another one.
    return median < -this.#error ? null : Math.max(median, 0);
  }

  /** From now on the pictures are those of this session, or of none. */
  follow(session) {
    clearTimeout(this.#timer);
    this.#session = session;
    this.#samples = [];
    this.#exchanges = [];
    this.#reported = performance.now() - PERIOD;
    if (session) this.#exchange(session);
  }

  /** Asks the server for its time and its timestamps, now and again. */
  async #exchange(session) {
    const asked = performance.now();
    const response = await fetch(`${session.resource}/clock`).catch(() => null);
    const answered = performance.now();
    const clock = response?.ok ? await response.json().catch(() => null) : null;
    if (this.#session !== session) return;
    if (clock) {
      this.#exchanges.push({ ...clock, way: answered - asked, ahead: clock.now - (asked + answered) / 2 });
      this.#exchanges.splice(0, this.#exchanges.length - EXCHANGES);
    }
    const wait = this.#exchanges.length < EXCHANGES ? FIRST_PERIOD : PERIOD;
    this.#timer = setTimeout(() => this.#exchange(session), clock ? wait : PERIOD);
  }

  #watch() {
    this.#video.requestVideoFrameCallback((now, metadata) => {
      this.#picture(metadata);
      this.#watch();
    });
  }

  #picture({ rtpTimestamp, expectedDisplayTime }) {
    const newest = this.#exchanges.findLast(({ video }) => video !== null);
    if (rtpTimestamp === undefined || !newest) return;
    const { ahead, way } = this.#exchanges.reduce((best, one) => (one.way < best.way ? one : best));
    this.#error = SCREEN + way / 2;
    // Timestamps wrap: the nearest one is meant.
    const captured = newest.now - ((newest.video - rtpTimestamp) | 0) / TICKS;
    this.#samples.push(expectedDisplayTime + ahead - captured);
    this.#samples.splice(0, this.#samples.length - SAMPLES);
    this.#shown = performance.now();
  }

  #write() {
    const { ms } = this;
    this.#label.textContent = `Latency ${ms === null ? 'n/a' : `${Math.round(ms)} ms`}`;
    if (this.#samples.length >= SETTLED && ms !== null) this.#report(ms);
  }

  #report(ms) {
    const now = performance.now();
    if (!this.#session?.resource || now - this.#reported < PERIOD) return;
    this.#reported = now;
    fetch(`${this.#session.resource}/latency`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ ms }),
    }).catch(() => {});
  }
}
