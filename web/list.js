// The list of live streams, refreshed every two seconds.

import { bitrate, layerName } from './signalling.js';

const list = document.getElementById('streams');
const empty = document.getElementById('empty');
const state = document.getElementById('state');

/** An element with text, which is never read as HTML: names come from anyone. */
function element(tag, text, className) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function card(stream) {
  const item = document.createElement('li');
  item.className = 'card';
  const title = document.createElement('h2');
  const link = element('a', stream.name);
  link.href = `/${stream.name}`;
  title.append(link);
  const live = stream.live
    ? element('p', `Live for ${duration(stream.uptime_ms)}`, 'live dot')
    : element('p', 'Waiting for its publisher');
  const tracks = [stream.video?.codec, stream.audio?.codec].filter(Boolean).join(' + ');
  if (stream.hls) {
    const hls = element('a', 'HLS');
    hls.href = `/hls/${stream.name}`;
    live.append(' · ', hls);
  }
  item.append(title, live, element('p', `${stream.viewers} watching · ${tracks || 'no media yet'}`));
  for (const layer of stream.video?.layers ?? []) {
    const rate = layer.active ? bitrate(layer.bitrate) : 'not sent';
    item.append(element('p', `${layerName(layer)} · ${rate}`));
  }
  return item;
}

function duration(ms) {
  const s = Math.floor(ms / 1000);
  const parts = [Math.floor(s / 3600), Math.floor(s / 60) % 60, s % 60];
  return parts.map((n) => String(n).padStart(2, '0')).join(':');
}

async function refresh() {
  try {
    const response = await fetch('/api/streams');
    if (!response.ok) throw new Error(await response.text());
    const { streams } = await response.json();
    list.replaceChildren(...streams.map(card));
    empty.hidden = streams.length > 0;
    state.className = '';
    state.textContent = streams.length === 1 ? '1 stream' : `${streams.length} streams`;
  } catch {
    state.className = 'error';
    state.textContent = 'The server does not answer; trying again.';
  }
  setTimeout(refresh, 2000);
}

refresh();
