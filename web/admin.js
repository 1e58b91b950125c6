// What the server does now, for who may know it, every two seconds; ends sessions, and records.

import { byId, duration, element, link } from './page.js';
import { Plot } from './plot.js';
import { bitrate, layerName } from './signalling.js';

const EVERY = 2000;
/** What the server refused stays to be read for so long, in ms. */
const READ = 10000;
/** Sessions that are shown. */
const SHOWN = 100;

const given = new URLSearchParams(location.search).get('token');
let token = given ?? sessionStorage.getItem('token');

async function ask(path, method = 'GET', body = null) {
  const headers = { Accept: 'application/json' };
  if (body) headers['Content-Type'] = 'application/json';
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(`/api/v1/${path}`, { method, headers, body: body && JSON.stringify(body) });
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  const problem = await answer.json().catch(() => ({}));
  throw Object.assign(new Error(problem.detail ?? problem.title ?? `The server answered ${answer.status}.`), { status: answer.status });
}

const whole = (value) => String(Math.round(value));
const rate = (value) => bitrate(value || 0.1);
const percent = (value) => `${Math.round(value * 100)} %`;
const ms = (value) => `${Math.round(value)} ms`;
const plots = {
  viewers: new Plot('Viewers', whole),
  sent: new Plot('Sent', rate, 1e5),
  load: new Plot('Load of each shard', percent, 1),
  bitrates: new Plot('Bitrate of layers', rate, 1e5),
  layers: new Plot('Viewers by layer', whole),
  frames: new Plot('Frames a second', whole, 30),
  latency: new Plot('Latency, 95 %', ms, 200),
  refused: new Plot('Refused a second', (value) => value.toFixed(1)),
};
byId('plots').append(...Object.values(plots).map((plot) => plot.figure));

let last = null;

/** How much a figure that only rises has risen in a second. */
function risen(now, before, seconds) {
  return before === undefined || before === null || now === null ? null : Math.max(0, now - before) / seconds;
}

const sum = (values) => values.reduce((total, value) => total + (value ?? 0), 0);

function plot(server, streams, sessions) {
  const viewers = Object.fromEntries(streams.map((s) => [s.name, s.viewers]));
  plots.viewers.add(viewers, server.viewers);
  const [bitrates, frames, latency] = [{}, {}, {}];
  for (const stream of streams) {
    for (const layer of stream.video?.layers ?? []) {
      const name = `${stream.name} ${layerName(layer)}`;
      bitrates[name] = layer.active ? layer.bitrate : 0;
      frames[name] = layer.frame_rate;
    }
    if (stream.latency) latency[stream.name] = stream.latency.p95_ms;
  }
  plots.bitrates.add(bitrates, sum(Object.values(bitrates)));
  plots.frames.add(frames, Math.max(0, ...Object.values(frames).map((value) => value ?? 0)));
  const late = Object.values(latency);
  plots.latency.add(latency, late.length ? Math.max(...late) : null);
  const layers = {};
  for (const { layer, stream, kind } of sessions) {
    if (kind === 'viewer' && layer?.current) layers[`${stream} ${layer.current}`] = (layers[`${stream} ${layer.current}`] ?? 0) + 1;
  }
  plots.layers.add(layers, sum(Object.values(layers)));
  if (last) {
    const seconds = (server.clock_ms - last.clock_ms) / 1000;
    const of = (figure) => server.shards.map((shard, n) => risen(shard[figure], last.shards[n]?.[figure], seconds));
    const named = (values) => Object.fromEntries(values.map((value, n) => [`shard ${n}`, value]));
    const sent = of('sent_bytes').map((value) => (value === null ? null : value * 8));
    plots.sent.add(named(sent), sum(sent));
    const load = of('cpu_seconds');
    plots.load.add(named(load), Math.max(0, ...load));
    const reasons = Object.keys(server.refused);
    const refused = Object.fromEntries(reasons.map((why) => [why, risen(server.refused[why], last.refused[why], seconds)]));
    plots.refused.add(refused, sum(Object.values(refused)));
  }
  last = server;
}

/** What should be looked at, in words. */
function troubles(stream) {
  const found = [];
  for (const layer of stream.video?.layers ?? []) {
    const name = layerName(layer);
    if (layer.b_frames) found.push(`${name} has B-frames: set the encoder to none`);
    if (layer.timestamp_jumps > 0) found.push(`${name}: timestamps jumped ${layer.timestamp_jumps} times`);
    if (layer.keyframe_interval_ms > 10000) found.push(`${name}: ${Math.round(layer.keyframe_interval_ms / 1000)} s between keyframes`);
  }
  return found;
}

function button(text, label, act) {
  const made = element('button', text);
  made.setAttribute('aria-label', label);
  made.addEventListener('click', async () => {
    made.disabled = true;
    await attempt(act);
    made.disabled = false;
  });
  return made;
}

/** How a publisher's media comes. */
const INPUTS = { whip: 'by WHIP', element: 'from a pipeline', room: 'from a room' };
/** By stream, so that a refresh takes no focus away. */
const cards = new Map();

function makeCard(name, recording) {
  const card = element('li', '', 'card');
  const title = document.createElement('h2');
  title.append(link(name, `/${name}`));
  const [status, tracks, layers, wrong] = ['p', 'p', 'ul', 'p'].map((tag) => document.createElement(tag));
  layers.className = 'layers';
  wrong.className = 'wrong';
  const path = encodeURIComponent(name);
  const parts = { card, status, tracks, layers, wrong, stream: null };
  const record = button('Record', `Record ${name}`, () => ask(`recorders/${path}`, parts.stream.recorded ? 'DELETE' : 'PUT'));
  const kick = button('End', `End the publisher of ${name}`, () => ask(`streams/${path}`, 'DELETE'));
  record.hidden = !recording;
  const bar = element('p', '', 'links');
  bar.append(record, kick);
  card.append(title, status, tracks, layers, wrong, bar);
  return { ...parts, record, kick, of: parts };
}

function showStream(stream, recording) {
  if (!cards.has(stream.name)) cards.set(stream.name, makeCard(stream.name, recording));
  const made = cards.get(stream.name);
  made.of.stream = stream;
  made.status.className = stream.live ? 'live dot' : '';
  made.status.textContent = stream.live ? `Live for ${duration(stream.uptime_ms)}, ${INPUTS[stream.input] ?? `by ${stream.input}`}` : 'Waiting for its publisher';
  const count = stream.audio?.channels;
  const channels = count ? ` ${count} channel${count === 1 ? '' : 's'}` : '';
  const tracks = [stream.video?.codec, stream.audio && `${stream.audio.codec}${channels}`].filter(Boolean).join(' + ');
  made.tracks.textContent = `${stream.viewers} watching · ${tracks || 'no media yet'}`;
  made.layers.replaceChildren(...(stream.video?.layers ?? []).map((layer) => {
    const row = document.createElement('li');
    const every = layer.keyframe_interval_ms ? `, keyframe ${(layer.keyframe_interval_ms / 1000).toFixed(1)} s` : '';
    row.append(
      element('span', `${layerName(layer)} ${layer.profile ?? ''}`),
      element('span', `${layer.frame_rate?.toFixed(0) ?? '–'} fps${every}`),
      element('span', layer.active ? bitrate(layer.bitrate) : 'not sent'),
    );
    return row;
  }));
  made.wrong.textContent = troubles(stream).join('. ');
  made.record.textContent = stream.recorded ? 'Stop recording' : 'Record';
  return made.card;
}

function showStreams(streams, recording) {
  for (const name of [...cards.keys()]) {
    if (!streams.some((stream) => stream.name === name)) {
      cards.get(name).card.remove();
      cards.delete(name);
    }
  }
  const list = byId('streams');
  streams.map((stream) => showStream(stream, recording)).forEach((card, n) => {
    if (list.children[n] !== card) list.insertBefore(card, list.children[n] ?? null);
  });
  byId('no-streams').hidden = streams.length > 0;
}

const rows = new Map();

function cell(text, small = '') {
  const made = element('td', text);
  if (small) made.append(element('small', small));
  return made;
}

function showSession(session) {
  const { number } = session;
  if (!rows.has(number)) {
    const row = document.createElement('tr');
    const last = document.createElement('td');
    last.append(button('End', `End session ${number}`, () => ask(`sessions/${number}`, 'DELETE')));
    rows.set(number, { row, last });
  }
  const { row, last } = rows.get(number);
  const who = session.user ?? session.address ?? '–';
  const path = session.path ? `${session.path.remote} by ${session.path.protocol}` : 'not connected';
  const gets = session.kind === 'publisher' ? 'publishes' : `layer ${session.layer?.current ?? '–'}`;
  const why = session.layer && session.layer.why !== 'highest' ? session.layer.why : '';
  const network = [
    session.estimate !== null && rate(session.estimate),
    session.loss !== null && `${(session.loss * 100).toFixed(1)} % lost`,
  ].filter(Boolean).join(', ');
  const times = [
    session.rtt_ms !== null && `${session.rtt_ms.toFixed(0)} ms round trip`,
    session.latency_ms !== null && `${session.latency_ms} ms late`,
  ].filter(Boolean).join(', ');
  row.replaceChildren(
    cell(`${number}`, duration(session.age_ms)),
    cell(session.stream),
    cell(who, path),
    cell(gets, why),
    cell(network || '–', times),
    cell(`${(session.bytes_sent / 1e6).toFixed(1)} MB`),
    last,
  );
  return row;
}

function showSessions(sessions, more) {
  for (const number of [...rows.keys()]) if (!sessions.some((session) => session.number === number)) rows.delete(number);
  const focused = document.activeElement;
  byId('sessions').tBodies[0].replaceChildren(...sessions.slice(0, SHOWN).map(showSession));
  if (focused?.isConnected) focused.focus();
  byId('more').hidden = !more && sessions.length <= SHOWN;
  byId('more').textContent = `The first ${SHOWN} are shown.`;
}

const pushRows = new Map();

function showPush(push) {
  const { number } = push;
  if (!pushRows.has(number)) {
    const last = document.createElement('td');
    last.append(button('End', `End push ${number}`, () => ask(`pushes/${number}`, 'DELETE')));
    pushRows.set(number, { row: document.createElement('tr'), last });
  }
  const { row, last } = pushRows.get(number);
  const again = push.retry_in_ms === null ? '' : `again in ${duration(push.retry_in_ms)}`;
  row.replaceChildren(
    cell(`${number}`, duration(push.since_ms)),
    cell(push.stream),
    cell(push.service),
    cell(push.state, [push.reason, again].filter(Boolean).join(', ')),
    cell(`${(push.octets / 1e6).toFixed(1)} MB`),
    last,
  );
  return row;
}

function showPushes(pushes) {
  for (const number of [...pushRows.keys()]) if (!pushes.some((push) => push.number === number)) pushRows.delete(number);
  const focused = document.activeElement;
  byId('pushes').tBodies[0].replaceChildren(...pushes.map(showPush));
  if (focused?.isConnected) focused.focus();
  byId('pushes').hidden = pushes.length === 0;
  byId('push').hidden = false;
}

let problemAt = -Infinity;

/** Does what somebody asked for, and shows what the server says against it. */
async function attempt(act) {
  problemAt = -Infinity;
  try {
    await act();
    await refresh();
  } catch (error) {
    say(error.message, true);
    problemAt = performance.now();
  }
}

function say(text, isError = false) {
  byId('state').textContent = text;
  byId('state').className = isError ? 'error' : '';
}

async function refresh() {
  const asked = [ask('server'), ask('streams?limit=200'), ask('sessions?limit=1000'), ask('pushes?limit=100')];
  const [server, streams, sessions, pushes] = await Promise.all(asked);
  byId('ask').hidden = true;
  plot(server, streams.items, sessions.items);
  showStreams(streams.items, server.recording);
  showSessions(sessions.items, sessions.next !== null);
  showPushes(pushes.items);
  const drain = server.draining ? ' · draining' : '';
  const counted = (count, what) => `${count} ${what}${count === 1 ? '' : 's'}`;
  const has = [[server.viewers, 'viewer'], [server.publishers, 'publisher'], [server.connections, 'connection']].map((one) => counted(...one));
  if (performance.now() - problemAt < READ) return;
  say(`gst-sfu ${server.version} · ${has.join(', ')}${drain}`);
}

async function go() {
  try {
    await refresh();
  } catch (error) {
    const refused = error.status === 401 || error.status === 403;
    byId('ask').hidden = !refused;
    say(refused ? error.message : 'The server does not answer; trying again.', true);
    // Wrong tokens are counted against an address: who types one says when.
    if (refused) return;
  }
  setTimeout(go, EVERY);
}

byId('push').addEventListener('submit', async (event) => {
  event.preventDefault();
  const url = byId('push-url');
  await attempt(async () => {
    await ask('pushes', 'POST', { stream: byId('push-stream').value.trim(), url: url.value.trim() });
    // Nobody is to read the key from the page.
    url.value = '';
  });
});

byId('ask').addEventListener('submit', (event) => {
  event.preventDefault();
  token = byId('token').value.trim();
  sessionStorage.setItem('token', token);
  go();
});

go();
