// The canvas on which the studio composes its sources: scenes, crossfades, lower third and logo. Called by studio.js.

const WIDTH = 1280;
const HEIGHT = 720;
const FPS = 30;
/** How long scenes take to change, and overlays to come and go, in ms. */
const FADE = 300;
const FONT = 'system-ui, sans-serif';
const MARGIN = 36;
const ALL = { x: 0, y: 0, width: WIDTH, height: HEIGHT };

/** The scenes in the order of their keys. */
export const SCENES = [
  { id: 'camera', name: 'Camera' },
  { id: 'screen', name: 'Screen' },
  { id: 'pip', name: 'Picture in picture' },
  { id: 'side', name: 'Side by side' },
  { id: 'break', name: 'Be right back' },
  { id: 'guests', name: 'Guests' },
];

/** The largest box of a picture's shape inside another, in its middle. */
function fit({ width, height }, box) {
  const scale = Math.min(box.width / width, box.height / height);
  const [w, h] = [width * scale, height * scale];
  return { x: box.x + (box.width - w) / 2, y: box.y + (box.height - h) / 2, width: w, height: h };
}

const size = (video) => ({ width: video.videoWidth, height: video.videoHeight });

/** A value that goes to 0 or 1 in the time of a fade. */
class Fade {
  value = 0;

  to(on, ms) {
    const step = ms / FADE;
    this.value = on ? Math.min(1, this.value + step) : Math.max(0, this.value - step);
    // Slow at both ends.
    return this.value * this.value * (3 - 2 * this.value);
  }
}

export class Mixer {
  /** What is written: two lines of the lower third, the card's text, and the name where nothing can be shown. */
  texts = { first: '', second: '', card: '', name: '' };
  lowerThird = false;
  logo = false;
  /** An image that is loaded, or null. */
  image = null;
  /** The names of those sources that stand beside the camera in the scene of guests. */
  onAir = [];
  #scene = 'camera';
  #videos = { camera: null, screen: null };
  #context;
  /** The picture of the scene before, while it fades away. */
  #before;
  #fadedAt = -Infinity;
  #last = performance.now();
  #third = new Fade();
  #mark = new Fade();

  constructor(canvas) {
    canvas.width = WIDTH;
    canvas.height = HEIGHT;
    this.#context = canvas.getContext('2d', { alpha: false });
    this.#before = document.createElement('canvas').getContext('2d', { alpha: false });
    this.#before.canvas.width = WIDTH;
    this.#before.canvas.height = HEIGHT;
    this.#draw();
    /** The composed picture, which stays the same track whatever happens to the sources. */
    this.track = canvas.captureStream(FPS).getVideoTracks()[0];
    this.frames = 0;
  }

  get scene() {
    return this.#scene;
  }

  /** Draws for ever, and calls back after each picture. */
  run(drawn) {
    const worker = new Worker('/assets/ticker.js');
    const step = () => {
      this.#draw();
      drawn();
    };
    worker.addEventListener('message', () => {
      try {
        step();
      } finally {
        worker.postMessage(null);
      }
    });
    // A page's own timer is better than none.
    worker.addEventListener('error', () => setInterval(step, 1000 / FPS), { once: true });
    worker.postMessage(1000 / FPS);
  }

  /** Changes the scene by a crossfade from what is shown now. */
  show(scene) {
    if (scene === this.#scene) return;
    this.#paint(this.#before, performance.now());
    this.#scene = scene;
    this.#fadedAt = performance.now();
  }

  /** Puts a stream in the place of `camera`, `screen` or a guest, or with null takes it away. */
  plug(name, stream) {
    const video = stream ? document.createElement('video') : null;
    const old = this.#videos[name];
    if (old) old.srcObject = null;
    this.#videos[name] = video;
    if (!video) {
      if (!['camera', 'screen'].includes(name)) delete this.#videos[name];
      return;
    }
    video.muted = true;
    video.playsInline = true;
    video.srcObject = stream;
    video.play().catch(() => {});
  }

  /** The video of a source that has a picture. */
  #source(name) {
    const video = this.#videos[name];
    return video && video.videoWidth > 0 && video.readyState >= 2 ? video : null;
  }

  #draw() {
    const now = performance.now();
    const passed = now - this.#last;
    this.#last = now;
    const context = this.#context;
    this.#paint(context, now);
    const gone = (now - this.#fadedAt) / FADE;
    if (gone < 1) {
      context.globalAlpha = 1 - gone;
      context.drawImage(this.#before.canvas, 0, 0);
      context.globalAlpha = 1;
    }
    const third = this.#third.to(this.lowerThird && (this.texts.first || this.texts.second), passed);
    if (third > 0) this.#paintLowerThird(context, third);
    const mark = this.#mark.to(this.logo && this.image, passed);
    if (mark > 0 && this.image) this.#paintLogo(context, mark);
    this.frames += 1;
  }

  /** The scene alone. A source that is missing leaves its place to the other. */
  #paint(context, now) {
    background(context);
    const [camera, screen] = [this.#source('camera'), this.#source('screen')];
    switch (this.#scene) {
      case 'break':
        paintCard(context, this.texts.card, now);
        break;
      case 'guests': {
        const all = [camera, ...this.onAir.map((name) => this.#source(name))].filter(Boolean);
        if (all.length > 1) paintGrid(context, all);
        else this.#paintFull(context, all[0] ?? screen);
        break;
      }
      case 'pip':
        if (camera && screen) paintInCorner(context, screen, camera);
        else this.#paintFull(context, screen ?? camera);
        break;
      case 'side':
        if (camera && screen) paintBeside(context, screen, camera);
        else this.#paintFull(context, screen ?? camera);
        break;
      case 'screen':
        this.#paintFull(context, screen ?? camera);
        break;
      default:
        this.#paintFull(context, camera ?? screen);
    }
  }

  #paintFull(context, video) {
    if (video) put(context, video, fit(size(video), ALL));
    else write(context, this.texts.name, { y: HEIGHT / 2, size: 56, color: '#a3b0bf' });
  }

  #paintLowerThird(context, shown) {
    const { first, second } = this.texts;
    const inner = 640;
    context.save();
    context.globalAlpha = shown;
    context.translate((shown - 1) * 80, 0);
    const height = first && second ? 124 : 80;
    const [x, y] = [MARGIN, HEIGHT - MARGIN - height];
    const wide = Math.min(inner, Math.max(measure(context, first, 40, 700), measure(context, second, 28, 400)));
    context.fillStyle = '#0b1017e6';
    context.beginPath();
    context.roundRect(x, y, wide + 64, height, 10);
    context.fill();
    context.fillStyle = '#6cb6ff';
    context.fillRect(x, y + 10, 8, height - 20);
    const left = x + 36;
    if (first) write(context, first, { x: left, y: y + 40 + (second ? 2 : 0), size: 40, max: inner, align: 'left' });
    const below = first ? y + 90 : y + 40;
    if (second) write(context, second, { x: left, y: below, size: 28, weight: 400, max: inner, align: 'left', color: '#c9d4e0' });
    context.restore();
  }

  #paintLogo(context, shown) {
    const picture = { width: this.image.naturalWidth, height: this.image.naturalHeight };
    const box = fit(picture, { x: 0, y: 0, width: 200, height: 100 });
    context.globalAlpha = shown;
    context.drawImage(this.image, WIDTH - MARGIN - box.width, MARGIN, box.width, box.height);
    context.globalAlpha = 1;
  }
}

function background(context) {
  const shade = context.createLinearGradient(0, 0, 0, HEIGHT);
  shade.addColorStop(0, '#141b24');
  shade.addColorStop(1, '#0a0e13');
  context.fillStyle = shade;
  context.fillRect(0, 0, WIDTH, HEIGHT);
}

function put(context, video, { x, y, width, height }) {
  context.drawImage(video, x, y, width, height);
}

/** One over the whole picture, the other in its lower right corner. */
function paintInCorner(context, large, small) {
  put(context, large, fit(size(large), ALL));
  const box = fit(size(small), { x: 0, y: 0, width: 340, height: 240 });
  const place = { ...box, x: WIDTH - MARGIN - box.width, y: HEIGHT - MARGIN - box.height };
  context.fillStyle = '#0b1017';
  context.fillRect(place.x - 3, place.y - 3, place.width + 6, place.height + 6);
  put(context, small, place);
}

/** Two of the same room beside each other. */
function paintBeside(context, left, right) {
  const gap = 12;
  const width = (WIDTH - 3 * gap) / 2;
  put(context, left, fit(size(left), { x: gap, y: gap, width, height: HEIGHT - 2 * gap }));
  put(context, right, fit(size(right), { x: 2 * gap + width, y: gap, width, height: HEIGHT - 2 * gap }));
}

/** As many of the same rank as there are, in equal boxes; a last row that is not full stands in the middle. */
function paintGrid(context, videos) {
  const gap = 12;
  const columns = Math.ceil(Math.sqrt(videos.length));
  const rows = Math.ceil(videos.length / columns);
  const [width, height] = [(WIDTH - gap * (columns + 1)) / columns, (HEIGHT - gap * (rows + 1)) / rows];
  videos.forEach((video, n) => {
    const row = Math.floor(n / columns);
    const missing = row === rows - 1 ? rows * columns - videos.length : 0;
    const x = gap + (n % columns) * (width + gap) + (missing * (width + gap)) / 2;
    put(context, video, fit(size(video), { x, y: gap + row * (height + gap), width, height }));
  });
}

/** The card of a break; its dots show that the stream goes on. */
function paintCard(context, text, now) {
  const shade = context.createLinearGradient(0, 0, WIDTH, HEIGHT);
  shade.addColorStop(0, '#1d3f6e');
  shade.addColorStop(1, '#3a1d5e');
  context.fillStyle = shade;
  context.fillRect(0, 0, WIDTH, HEIGHT);
  write(context, text, { y: HEIGHT / 2 - 30, size: 84, max: WIDTH - 160 });
  for (const n of [0, 1, 2]) {
    context.fillStyle = `rgba(255, 255, 255, ${0.35 + 0.5 * Math.max(0, Math.sin(now / 400 - n))})`;
    context.beginPath();
    context.arc(WIDTH / 2 + (n - 1) * 44, HEIGHT / 2 + 70, 9, 0, 2 * Math.PI);
    context.fill();
  }
}

function measure(context, text, px, weight) {
  context.font = `${weight} ${px}px ${FONT}`;
  return context.measureText(text).width;
}

/** One line of text, as small as it must be to fit. */
function write(context, text, { x = WIDTH / 2, y, size: px, weight = 700, max = WIDTH - 160, align = 'center', color = '#fff' }) {
  const wide = measure(context, text, px, weight);
  if (wide > max) context.font = `${weight} ${Math.floor((px * max) / wide)}px ${FONT}`;
  context.fillStyle = color;
  context.textAlign = align;
  context.textBaseline = 'middle';
  context.fillText(text, x, y);
}
