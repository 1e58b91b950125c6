// Plots of what has been seen lately: one line or several, the newest value at the right.

import { element } from './page.js';

/** As many values as are shown: five minutes of two seconds each. */
const KEPT = 150;
const COLOURS = ['#6cb6ff', '#5dd39e', '#f5b971', '#ff8f8f', '#c79bff', '#7fe0e0', '#e8e27a', '#ff9ad5'];
const SVG = 'http://www.w3.org/2000/svg';
const [WIDTH, HEIGHT] = [300, 60];

function drawn(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** A plot with a title; `word` says a value for people. */
export class Plot {
  #lines = new Map();
  #svg = drawn('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' });
  #now = element('output', '–');
  #legend = element('p', '', 'legend');

  constructor(title, word, least = 1) {
    this.title = title;
    this.word = word;
    this.least = least;
    this.figure = element('figure', '', 'plot');
    const caption = document.createElement('figcaption');
    caption.append(element('span', title), this.#now);
    this.figure.append(caption, this.#svg, this.#legend);
  }

  /** The values now, by the names of their lines. `total` is said beside the title. */
  add(values, total = null) {
    for (const name of Object.keys(values)) if (!this.#lines.has(name)) this.#lines.set(name, []);
    for (const [name, line] of this.#lines) {
      line.push(values[name] ?? null);
      if (line.length > KEPT) line.shift();
      if (line.every((value) => value === null)) this.#lines.delete(name);
    }
    const said = total === null ? '–' : this.word(total);
    this.#now.textContent = said;
    this.#draw(said);
  }

  #draw(said) {
    const all = [...this.#lines.values()].flat().filter((value) => value !== null);
    const top = Math.max(this.least, ...all);
    const shown = [...this.#lines].slice(0, COLOURS.length);
    const lines = shown.map(([, line], n) => {
      const from = KEPT - line.length;
      const at = (value, k) => `${(((from + k) / (KEPT - 1)) * WIDTH).toFixed(1)},${(HEIGHT - (value / top) * HEIGHT).toFixed(1)}`;
      const points = line.map((value, k) => (value === null ? null : at(value, k))).filter(Boolean);
      return drawn('polyline', { points: points.join(' '), stroke: COLOURS[n] });
    });
    this.#svg.setAttribute('aria-label', `${this.title}: ${said}, at most ${this.word(top)} in the last five minutes`);
    this.#svg.replaceChildren(drawn('line', { x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT }), ...lines);
    const names = shown.map(([name], n) => {
      const word = element('span', `${name} `);
      word.style.color = COLOURS[n];
      return word;
    });
    this.#legend.replaceChildren(...(shown.length > 1 ? names : []));
  }
}
