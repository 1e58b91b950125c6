// The list of live streams, refreshed every two seconds.

import { byId, duration, element, link, withToken } from './page.js';
import { bitrate, layerName, watched } from './signalling.js';

/** Where a stream leads to: what the link says, its address, and when there is one. */
const LINKS = [
  ['Play', (name) => `/${name}`, () => true],
  ['HLS', (name) => `/hls/${name}`, (stream) => stream.hls],
  ['Publish', (name) => `/publish/${name}`, () => true],
  ['Studio', (name) => `/studio/${name}`, () => true],
];
/** How a publisher's media comes. */
const INPUTS = { whip: ' by WHIP', element: ' from a pipeline' };
/** By its name, so that a refresh does not take the focus from a link. */
const cards = new Map();

function makeCard(name) {
  const card = document.createElement('li');
  card.className = 'card';
  const title = document.createElement('h2');
  title.append(link(name, `/${name}`));
  const [status, tracks, layers] = ['p', 'p', 'ul'].map((tag) => document.createElement(tag));
  layers.className = 'layers';
  const list = element('p', '', 'links');
  const links = LINKS.map(([text, to]) => {
    const made = link(text, to(name), 'button');
    made.setAttribute('aria-label', `${text} ${name}`);
    return made;
  });
  list.append(...links);
  card.append(title, status, tracks, layers, list);
  return { card, status, tracks, layers, links };
}

function show(stream) {
  if (!cards.has(stream.name)) cards.set(stream.name, makeCard(stream.name));
  const { card, status, tracks, layers, links } = cards.get(stream.name);
  LINKS.forEach(([, , is], n) => { links[n].hidden = !is(stream); });
  status.className = stream.live ? 'live dot' : '';
  const from = INPUTS[stream.input] ?? '';
  status.textContent = stream.live ? `Live${from} for ${duration(stream.uptime_ms)}` : 'Waiting for its publisher';
  const codecs = [stream.video?.codec, stream.audio?.codec].filter(Boolean).join(' + ');
  tracks.textContent = `${watched(stream)} · ${codecs || 'no media yet'}`;
  layers.replaceChildren(...(stream.video?.layers ?? []).map((layer) => {
    const row = document.createElement('li');
    row.append(
      element('span', layerName(layer)),
      element('span', layer.width && layer.height ? `${layer.width}×${layer.height}` : ''),
      element('span', layer.active ? bitrate(layer.bitrate) : 'not sent'),
    );
    return row;
  }));
  return card;
}

async function refresh() {
  const [list, state] = [byId('streams'), byId('state')];
  try {
    const response = await fetch(withToken('/api/streams'));
    if (!response.ok) throw new Error(await response.text());
    const { streams, recordings } = await response.json();
    byId('recordings').hidden = !recordings;
    for (const name of [...cards.keys()]) {
      if (!streams.some((stream) => stream.name === name)) {
        cards.get(name).card.remove();
        cards.delete(name);
      }
    }
    streams.map(show).forEach((card, n) => {
      if (list.children[n] !== card) list.insertBefore(card, list.children[n] ?? null);
    });
    byId('empty').hidden = streams.length > 0;
    state.className = '';
    state.textContent = streams.length === 1 ? '1 stream' : `${streams.length} streams`;
  } catch {
    state.className = 'error';
    state.textContent = 'The server does not answer; trying again.';
  }
  setTimeout(refresh, 2000);
}

const form = byId('new');
form.addEventListener('submit', (event) => {
  event.preventDefault();
  location.href = withToken(`/${event.submitter?.value ?? 'studio'}/${byId('new-name').value}`);
});

refresh();
