// The studio: composes camera, screen, texts and a logo on a canvas, and publishes that by WHIP.

import { OFF, Screen, camera, fillMenus, microphone, obstacle } from './devices.js';
import { Guests } from './guests.js';
import { Live } from './live.js';
import { decoded, readLogo } from './logo.js';
import { Mixer, SCENES } from './mixer.js';
import { byId, duration, element, press, showFigures, withToken } from './page.js';
import { fillCodecs } from './sender.js';
import * as storage from './settings.js';
import { bitrate } from './signalling.js';
import { Sound } from './sound.js';

const stream = location.pathname.replace(/^\/studio\//, '');
const BITRATES = [800000, 1500000, 2500000, 4000000, 6000000];
/** How often the connection is looked after, and the figures are shown, in ms. */
const BEAT = 250;
const FIGURES = 1000;
const LIMITS = { none: 'nothing', cpu: 'this computer', bandwidth: 'the network', other: 'something else' };

const settings = storage.load();
const mixer = new Mixer(byId('program'));
const sound = new Sound();
const media = new MediaStream([mixer.track, sound.track]);
const live = new Live(stream, media, () => settings, showLive);
const cam = camera(() => sourceChanged('camera'));
const mic = microphone(() => settings.echo, () => sourceChanged('microphone'));
const screen = new Screen(() => sourceChanged('screen'));
const guests = new Guests(stream, mixer, sound);
/** What the page itself has to say, besides its devices. */
let trouble = null;


function change(changes) {
  Object.assign(settings, changes);
  storage.save(settings);
  apply();
}

/** Brings picture, sound and buttons in line with the settings. */
function apply() {
  mixer.show(settings.scene);
  Object.assign(mixer, { lowerThird: settings.lowerThird, logo: settings.logo });
  mixer.texts = { first: settings.first, second: settings.second, card: settings.card, name: stream };
  sound.muted = settings.muted;
  sound.setGain('microphone', settings.microphoneGain);
  sound.setGain('screen', settings.screenGain);
  for (const { id } of SCENES) press(`scene-${id}`, settings.scene === id);
  press('third', settings.lowerThird);
  press('logo', settings.logo);
  press('mute', settings.muted);
  byId('mute').firstChild.textContent = settings.muted ? 'Microphone is muted ' : 'Mute microphone ';
  byId('no-image').hidden = !settings.image;
}

/** After a device was opened, refused, or has gone. */
async function sourceChanged(name) {
  if (name === 'camera') mixer.plug('camera', cam.stream);
  if (name === 'microphone') sound.plug('microphone', mic.stream);
  if (name === 'screen') {
    mixer.plug('screen', screen.stream);
    sound.plug('screen', screen.stream);
  }
  press('screen', screen.stream !== null);
  byId('screen').firstChild.textContent = screen.stream ? 'Stop sharing ' : 'Share screen ';
  showProblems();
  await fillMenus(cam, mic);
}

function showProblems() {
  const problems = [obstacle(), cam.problem, mic.problem, screen.problem, trouble].filter(Boolean);
  byId('problem').hidden = problems.length === 0;
  byId('problem-text').textContent = problems.join(' ');
  byId('retry').hidden = obstacle() !== null || !(cam.problem || mic.problem);
}

/** Opens what is wanted and not open. One after the other: two questions at once are too many. */
async function openSources() {
  if (obstacle()) {
    showProblems();
    await fillMenus(cam, mic);
    return;
  }
  if (!cam.open) await cam.choose(settings.camera);
  if (!mic.open) await mic.choose(settings.microphone);
}

async function useImage(url) {
  mixer.image = url ? await decoded(url) : null;
}

async function chooseImage(file) {
  if (!file) return;
  trouble = null;
  try {
    const url = await readLogo(file);
    await useImage(url);
    change({ image: url, logo: true });
  } catch {
    trouble = 'The logo cannot be shown: choose an image such as a PNG, JPEG, WebP or SVG.';
    removeImage();
  }
  byId('image').value = '';
  showProblems();
}

function removeImage() {
  mixer.image = null;
  change({ image: '', logo: false });
}

function showLive() {
  const on = live.state !== 'off';
  byId('state').textContent = live.message;
  byId('state').className = live.isError ? 'error' : live.state === 'live' ? 'live dot' : '';
  byId('go').textContent = on ? 'End' : 'Go live';
  byId('go').classList.toggle('on', on);
  byId('takeover').hidden = !live.taken;
  byId('time').hidden = live.since === null;
  byId('health').hidden = !on;
  // These are for the next connection.
  for (const id of ['codec', 'simulcast']) byId(id).disabled = on;
}

const percent = (value) => (value === null ? '–' : `${(value * 100).toFixed(1)} %`);
const CONNECTION = { off: 'none', connecting: 'connecting', waiting: 'lost' };

/** What the server says of the stream, or null while it does not answer. */
async function asked() {
  const response = await fetch(withToken(`/api/streams/${stream}`)).catch(() => null);
  return response?.ok ? response.json() : null;
}

async function showHealth() {
  const { sender } = live;
  const [stats, info] = await Promise.all([sender?.stats(), live.state === 'live' ? asked() : null]);
  if (live.state === 'off' || live.sender !== sender) return;
  showFigures(byId('figures'), {
    Connection: CONNECTION[live.state] ?? stats.state,
    Sent: stats?.bitrate ? bitrate(stats.bitrate) : '–',
    'Frame rate': stats ? `${stats.fps.toFixed(0)} fps` : '–',
    'Limited by': stats ? LIMITS[stats.limitation] ?? stats.limitation : '–',
    'Round trip': stats?.rttMs == null ? '–' : `${stats.rttMs.toFixed(0)} ms`,
    'Packets lost': percent(stats?.loss ?? null),
    Reconnected: live.reconnects,
    Watching: info?.viewers ?? '–',
    Outputs: info?.outputs ?? '–',
  });
  const arrived = info?.video?.layers ?? [];
  byId('layers').replaceChildren(...(stats?.layers ?? []).map((layer) => layerRow(layer, arrived)));
}

/** A layer in the table. Browsers count padding as the lowest one's: the server knows better what each has. */
function layerRow(layer, arrived) {
  const row = document.createElement('tr');
  const video = layer.kind === 'video';
  const known = video && arrived.find(({ rid }) => rid === layer.rid);
  const rate = known ? known.active && known.bitrate : layer.bitrate;
  row.append(
    element('td', video ? `Video ${layer.rid}`.trim() : 'Sound'),
    element('td', layer.height ? `${layer.width}×${layer.height}` : '–'),
    element('td', video ? layer.fps.toFixed(0) : '–'),
    element('td', rate ? bitrate(rate) : 'not sent'),
    element('td', video ? LIMITS[layer.limitation] ?? layer.limitation : '–'),
  );
  return row;
}

/** What keys do, in the order of the list that people see. */
const ACTIONS = new Map([
  ...SCENES.map(({ id, name }, n) => [String(n + 1), [name, () => change({ scene: id })]]),
  ['L', ['Lower third', () => change({ lowerThird: !settings.lowerThird })]],
  ['G', ['Logo', () => change({ logo: !settings.logo })]],
  ['T', ['Write the lower third’s text (Enter ends)', () => byId('first').focus()]],
  ['S', ['Share the screen', () => screen.toggle()]],
  ['M', ['Mute the microphone', () => change({ muted: !settings.muted })]],
]);

function pressed(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  const { target } = event;
  const writes = target.matches('input:not([type=checkbox], [type=range], [type=file])');
  if (writes && ['Enter', 'Escape'].includes(event.key)) target.blur();
  if (writes || target.matches('select')) return;
  // By the letter on the key, or where another script is written by the key's place.
  const place = event.code.replace(/^(Key|Digit|Numpad)/, '');
  const action = ACTIONS.get(event.key.toUpperCase()) ?? ACTIONS.get(place);
  if (!action) return;
  event.preventDefault();
  action[1]();
}

function bind() {
  byId('scenes').replaceChildren(...SCENES.map(({ id, name }, n) => {
    const button = element('button', name);
    button.id = `scene-${id}`;
    button.append(' ', element('kbd', n + 1));
    button.addEventListener('click', () => change({ scene: id }));
    return button;
  }));
  byId('keys').replaceChildren(...[...ACTIONS].map(([key, [name]]) => {
    const [group, term] = [document.createElement('div'), document.createElement('dt')];
    term.append(element('kbd', key));
    group.append(term, element('dd', name));
    return group;
  }));
  for (const [id, key] of [['third', 'L'], ['logo', 'G'], ['screen', 'S'], ['mute', 'M']]) {
    byId(id).addEventListener('click', () => ACTIONS.get(key)[1]());
  }
  for (const id of ['first', 'second', 'card']) {
    byId(id).value = settings[id];
    byId(id).addEventListener('input', ({ target }) => change({ [id]: target.value }));
  }
  for (const [id, name] of [['microphone-gain', 'microphoneGain'], ['screen-gain', 'screenGain']]) {
    byId(id).value = settings[name];
    byId(id).addEventListener('input', ({ target }) => change({ [name]: Number(target.value) }));
  }
  for (const id of ['echo', 'simulcast']) {
    byId(id).checked = settings[id];
    byId(id).addEventListener('change', ({ target }) => change({ [id]: target.checked }));
  }
  byId('echo').addEventListener('change', () => mic.choose(settings.microphone));
  for (const [id, device] of [['camera', cam], ['microphone', mic]]) {
    byId(id).addEventListener('change', ({ target }) => {
      change({ [id]: target.value });
      device.choose(target.value);
    });
  }
  byId('image').addEventListener('change', ({ target }) => chooseImage(target.files[0]));
  byId('no-image').addEventListener('click', () => {
    removeImage();
    byId('image').focus();
  });
  fillCodecs(byId('codec'));
  byId('codec').value = settings.codec;
  if (byId('codec').selectedIndex < 0) byId('codec').selectedIndex = 0;
  settings.codec = byId('codec').value;
  byId('codec').addEventListener('change', ({ target }) => change({ codec: target.value }));
  const rates = [...new Set([...BITRATES, settings.bitrate])].sort((a, b) => a - b);
  byId('bitrate').replaceChildren(...rates.map((rate) => new Option(bitrate(rate), rate)));
  byId('bitrate').value = settings.bitrate;
  byId('bitrate').addEventListener('change', ({ target }) => {
    change({ bitrate: Number(target.value) });
    live.sender?.setBitrate(settings.bitrate).catch(() => {});
  });
}

function bindPage() {
  byId('name').textContent = stream;
  document.title = `Studio ${stream}`;
  byId('watch').href = withToken(`/${stream}`);
  byId('publish').href = withToken(`/publish/${stream}`);
  byId('screen').disabled = !Screen.possible;
  if (!Screen.possible) byId('screen').title = 'This browser does not share its screen.';
  byId('go').addEventListener('click', () => (live.state === 'off' ? live.start() : live.end()));
  byId('takeover').addEventListener('click', () => live.start(true));
  byId('retry').addEventListener('click', openSources);
  for (const event of ['pointerdown', 'keydown']) addEventListener(event, () => sound.resume());
  addEventListener('keydown', pressed);
  addEventListener('beforeunload', (event) => { if (live.state !== 'off') event.preventDefault(); });
  addEventListener('pagehide', () => {
    live.end();
    guests.close();
  });
  navigator.mediaDevices?.addEventListener('devicechange', async () => {
    const all = await fillMenus(cam, mic);
    await cam.plugged(all);
    await mic.plugged(all);
  });
}

let beaten = 0;
let shown = 0;

/** After each picture: everything of this page that happens in time hangs on the mixer's clock. */
function drawn() {
  const now = performance.now();
  if (now - beaten < BEAT) return;
  beaten = now;
  live.beat();
  if (!document.hidden) byId('level').value = sound.level();
  if (live.since !== null) byId('time').textContent = duration(now - live.since);
  if (now - shown < FIGURES) return;
  shown = now;
  showHealth();
}

bind();
bindPage();
apply();
useImage(settings.image).catch(removeImage);
mixer.run(drawn);
openSources();
window.studio = { guests, live, mixer, sound, settings, cam, mic, screen, OFF };
