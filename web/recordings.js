// The list of recordings by stream, refreshed every five seconds; and how recordings are worded.

import { withToken } from './page.js';

/** An element with text, which is never read as HTML: names come from anyone. */
export function element(tag, text = '', className = '') {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** The path of a file below `/recordings/play/` or `/recordings/files/`. */
export function path(file) {
  return file.split('/').map(encodeURIComponent).join('/');
}

export function duration(ms) {
  const s = Math.round(ms / 1000);
  const parts = [Math.floor(s / 3600), Math.floor(s / 60) % 60, s % 60];
  return parts.map((n) => String(n).padStart(2, '0')).join(':');
}

export function size(bytes) {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(2)} GB`;
  return bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.ceil(bytes / 1e3)} kB`;
}

export function start(recording) {
  return new Date(recording.start_ms).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
}

/** The recordings, newest first, of all streams or of one. */
export async function fetchRecordings(stream = null) {
  const query = stream ? `?stream=${encodeURIComponent(stream)}` : '';
  const response = await fetch(withToken(`/api/recordings${query}`));
  if (!response.ok) throw new Error((await response.text()).trim());
  return (await response.json()).recordings;
}

function link(text, address, label) {
  const made = element('a', text);
  made.href = withToken(address);
  made.setAttribute('aria-label', label);
  return made;
}

/** A cell, whose heading is shown beside it where the screen is narrow. */
function cell(heading, content) {
  const made = element('td');
  made.dataset.heading = heading;
  made.append(content);
  return made;
}

function row(recording) {
  const made = element('tr');
  const at = start(recording);
  const name = `${recording.stream} of ${at}`;
  const begins = link(at, `/recordings/play/${path(recording.file)}`, `Play ${name}`);
  const long = element('span', duration(recording.duration_ms));
  if (recording.state === 'recording') long.append(' ', element('span', 'recording', 'live dot'));
  if (recording.state === 'unfinished') long.append(' ', element('span', 'cut off', 'error'));
  const download = link('Download', `/recordings/files/${path(recording.file)}?download=1`, `Download ${name}`);
  download.download = '';
  made.append(cell('Start', begins), cell('Duration', long), cell('Size', size(recording.size)), cell('File', download));
  return made;
}

function table(stream, recordings) {
  const section = element('section', '', 'card');
  const total = recordings.reduce((sum, recording) => sum + recording.duration_ms, 0);
  const bytes = recordings.reduce((sum, recording) => sum + recording.size, 0);
  const files = recordings.length === 1 ? '1 file' : `${recordings.length} files`;
  const made = element('table', '', 'recordings');
  made.setAttribute('aria-label', `Recordings of ${stream}`);
  const head = element('tr');
  for (const heading of ['Start', 'Duration', 'Size', 'File']) head.append(element('th', heading));
  const body = element('tbody');
  body.append(...recordings.map(row));
  made.append(element('thead'), body);
  made.tHead.append(head);
  section.append(element('h2', stream), element('p', `${files} · ${duration(total)} · ${size(bytes)}`), made);
  return section;
}

async function refresh() {
  const state = document.getElementById('state');
  try {
    const recordings = await fetchRecordings();
    const streams = Map.groupBy(recordings, (recording) => recording.stream);
    const tables = [...streams].map(([stream, of]) => table(stream, of));
    document.getElementById('streams').replaceChildren(...tables);
    document.getElementById('empty').hidden = recordings.length > 0;
    state.className = '';
    state.textContent = recordings.length === 1 ? '1 recording' : `${recordings.length} recordings`;
  } catch (error) {
    state.className = 'error';
    // fetch() fails with a TypeError where nobody answers.
    state.textContent = error instanceof TypeError ? 'The server does not answer; trying again.' : error.message;
  }
  setTimeout(refresh, 5000);
}

if (document.getElementById('streams')) refresh();
