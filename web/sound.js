// The studio's sound: the microphone and the screen's own sound, each with its gain, mixed into one track that stays the
// same whatever is plugged in. Called by studio.js.

/** What the meter shows as silence, in dB below full scale. */
const SILENCE = -60;
/** Gains change over this many seconds: at once would click. */
const RAMP = 0.015;

export class Sound {
  #context = new AudioContext({ latencyHint: 'interactive' });
  #out = this.#context.createMediaStreamDestination();
  #meter = this.#context.createAnalyser();
  #samples = new Float32Array(this.#meter.fftSize);
  #inputs = {};
  #muted = false;
  #talking = false;
  /** What guests hear of the studio: no guest is in it, for they hear one another as they are. */
  #back = this.#context.createMediaStreamDestination();
  #talk = this.#context.createGain();

  constructor() {
    this.#meter.connect(this.#out);
    for (const name of ['microphone', 'screen']) this.#add(name);
    this.#inputs.screen.gain.connect(this.#back);
    this.#talk.connect(this.#back);
  }

  #add(name) {
    const gain = this.#context.createGain();
    gain.connect(this.#meter);
    this.#inputs[name] = { gain, source: null, wanted: 1 };
    return this.#inputs[name];
  }

  /** For guests: the microphone and the screen. */
  get backTrack() {
    return this.#back.stream.getAudioTracks()[0];
  }

  /** Guests hear the microphone, also while viewers don't. */
  set talking(talking) {
    this.#talking = talking;
    this.#apply('microphone');
  }

  /** The mix. With nothing plugged in it is silent. */
  get track() {
    return this.#out.stream.getAudioTracks()[0];
  }

  /** Browsers let no page make sound, not even for its viewers, before somebody touched it. */
  resume() {
    if (this.#context.state !== 'running') this.#context.resume().catch(() => {});
  }

  /** Mixes the sound of a stream in, in the place of `microphone`, `screen` or a guest; with null, or without sound, nothing. */
  plug(name, stream) {
    const input = this.#inputs[name] ?? this.#add(name);
    input.source?.disconnect();
    input.source = stream?.getAudioTracks().length ? this.#context.createMediaStreamSource(stream) : null;
    input.source?.connect(input.gain);
    if (name === 'microphone') input.source?.connect(this.#talk);
  }

  /** Forgets a guest's place. */
  remove(name) {
    this.plug(name, null);
    this.#inputs[name].gain.disconnect();
    delete this.#inputs[name];
  }

  setGain(name, value) {
    this.#inputs[name].wanted = value;
    this.#apply(name);
  }

  /** Only the microphone: what the screen plays goes on. */
  get muted() {
    return this.#muted;
  }

  set muted(muted) {
    this.#muted = muted;
    this.#apply('microphone');
  }

  #apply(name) {
    const { gain, wanted } = this.#inputs[name];
    const silent = name === 'microphone' && this.#muted;
    gain.gain.setTargetAtTime(silent ? 0 : wanted, this.#context.currentTime, RAMP);
    if (name !== 'microphone') return;
    this.#talk.gain.setTargetAtTime(silent && !this.#talking ? 0 : Math.max(wanted, Number(this.#talking)), this.#context.currentTime, RAMP);
  }

  /** The loudest that the viewers hear now, in dB below full scale. */
  level() {
    this.#meter.getFloatTimeDomainData(this.#samples);
    let peak = 0;
    for (const sample of this.#samples) peak = Math.max(peak, Math.abs(sample));
    return Math.max(SILENCE, 20 * Math.log10(peak));
  }
}
