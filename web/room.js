// A room: a lobby with preview and choice of devices, then everybody in tiles, with chat, screens and hands.

import { Chat } from './chat.js';
import { OFF, Screen, camera, fillMenus, microphone, obstacle } from './devices.js';
import { byId, plain, press } from './page.js';
import { RoomClient, entry } from './room-client.js';
import { Tiles } from './tiles.js';

const room = decodeURIComponent(location.pathname.replace(/^\/room\//, ''));
const NAME = 'sfu-room-name';

const cam = camera(() => deviceChanged('CAMERA', cam));
const mic = microphone(() => true, () => deviceChanged('MICROPHONE', mic));
const screen = new Screen(screenChanged);
const chat = new Chat();
let client = null;
let tiles = null;
let muted = false;
/** What may be sent, by source; whoever looks on has nothing to show. */
let allowed = {};
const SOURCES = { CAMERA: 'camera', MICROPHONE: 'microphone', SCREEN_SHARE: 'screen' };

const label = (id, text) => { byId(id).firstChild.textContent = `${text} `; };
const first = (stream, kind) => stream?.getTracks().find((track) => track.kind === kind) ?? null;

function say(text, className = '') {
  byId('state').textContent = text;
  byId('state').className = className;
}

function own(source) {
  if (!allowed[source]) return null;
  if (source === 'CAMERA') return first(cam.stream, 'video');
  return source === 'SCREEN_SHARE' ? first(screen.stream, 'video') : null;
}

function showProblems() {
  const problems = [obstacle(), cam.problem, mic.problem, screen.problem].filter(Boolean);
  byId('problem').hidden = problems.length === 0;
  byId('problem').textContent = problems.join(' ');
  byId('retry').hidden = obstacle() !== null || !(cam.problem || mic.problem);
  if (client && problems.length > 0) say(problems[0], 'error');
}

/** What was opened or has gone goes to the preview, and to the room. */
async function deviceChanged(source, device) {
  if (device === cam) {
    byId('preview').srcObject = cam.stream;
    byId('no-preview').hidden = cam.open;
    press('video', !cam.open);
    label('video', cam.open ? 'Camera off' : 'Camera on');
  }
  const track = first(device.stream, source === 'CAMERA' ? 'video' : 'audio');
  if (source === 'MICROPHONE' && track) track.enabled = !muted;
  showProblems();
  await fillMenus(cam, mic);
  await send(source, track);
}

async function send(source, track) {
  if (!client?.may.publish(source)) return;
  try {
    await client.setTrack(source, track);
    if (source === 'MICROPHONE' && track) client.setMuted(source, muted);
  } catch (error) {
    say(`It is not sent: ${error.message}`, 'error');
  }
  tiles?.refresh();
}

async function screenChanged() {
  press('screen', screen.stream !== null);
  label('screen', screen.stream ? 'Stop sharing' : 'Share screen');
  showProblems();
  await send('SCREEN_SHARE', first(screen.stream, 'video'));
  await send('SCREEN_SHARE_AUDIO', first(screen.stream, 'audio'));
}

async function openDevices() {
  if (obstacle()) {
    showProblems();
    await fillMenus(cam, mic);
    return;
  }
  if (!cam.open && cam.wanted !== OFF) await cam.choose(cam.wanted);
  if (!mic.open && mic.wanted !== OFF) await mic.choose(mic.wanted);
}

async function join() {
  const name = byId('who').value.trim();
  if (!name || client) return;
  byId('enter').disabled = true;
  say('Joining…');
  try {
    const ticket = await entry(room, name);
    const joining = new RoomClient(ticket.token);
    await joining.join();
    client = joining;
    localStorage.setItem(NAME, name);
  } catch (error) {
    say(error.message, 'error');
    return;
  } finally {
    byId('enter').disabled = false;
  }
  begin();
  await sendAll();
}

/** All that is open and may be sent. */
async function sendAll() {
  await send('CAMERA', own('CAMERA'));
  await send('MICROPHONE', first(mic.stream, 'audio'));
}

/** What may be sent is what the server says last: buttons follow it, and what is open is sent again once it may be. */
function follow() {
  const { publish, write, change } = client.may;
  const before = allowed;
  allowed = Object.fromEntries(Object.keys(SOURCES).map((source) => [source, publish(source)]));
  byId('mute').disabled = !allowed.MICROPHONE;
  byId('video').disabled = !allowed.CAMERA;
  byId('screen').disabled = !allowed.SCREEN_SHARE || !Screen.possible;
  byId('words').disabled = !write;
  byId('send').disabled = !write;
  byId('hand').disabled = !change;
  const named = (is) => Object.keys(SOURCES).filter((source) => source in before && before[source] !== allowed[source] && allowed[source] === is);
  const [given, taken] = [named(true), named(false)];
  if (taken.includes('SCREEN_SHARE') && screen.stream) screen.toggle();
  if (given.length + taken.length === 0) return;
  const list = (sources) => sources.map((source) => SOURCES[source]).join(', ');
  if (taken.length > 0) say(`You may not send your ${list(taken)} any more`, 'error');
  else say(`Live: you may send your ${list(given)} now`, 'live dot');
  if (given.length > 0) sendAll();
}

function begin() {
  byId('lobby').hidden = true;
  byId('room').hidden = false;
  tiles = new Tiles(client, own);
  tiles.speakerView = byId('layout').getAttribute('aria-pressed') === 'true';
  allowed = {};
  client.addEventListener('changed', changed);
  client.addEventListener('speakers', () => tiles?.spoke());
  client.addEventListener('text', ({ detail: { from, words } }) => {
    const sender = [...client.others.values()].find(({ identity }) => identity === from);
    chat.add(plain(sender?.name || from), words);
    showChat();
  });
  client.addEventListener('muted', ({ detail: { source, muted: wanted } }) => silenced(source, wanted));
  client.addEventListener('state', stateChanged);
  changed();
  stateChanged();
}

function stateChanged() {
  if (client.state === 'over') {
    end(client.why);
    return;
  }
  if (client.state === 'away') say(client.why, 'error');
  if (client.state !== 'joined') return;
  say(Object.keys(SOURCES).some(client.may.publish) ? 'Live' : 'Looking on', 'live dot');
  follow();
  // Whoever comes back begins without it.
  if (byId('hand').getAttribute('aria-pressed') === 'true') client.setAttributes({ hand: 'raised' });
}

function changed() {
  if (!client) return;
  if (client.state === 'joined') follow();
  const people = client.others.size + 1;
  byId('count').hidden = false;
  byId('count').textContent = people === 1 ? 'Only you are here' : `${people} people`;
  const studios = [...client.others.values()].filter(({ attributes }) => attributes?.role === 'studio');
  byId('tally').hidden = !studios.some(({ attributes }) => attributes.onair?.split(' ').includes(client.me?.sid));
  tiles?.refresh();
}

/** Somebody who may has muted this participant. */
function silenced(source, wanted) {
  if (source === 'MICROPHONE' && wanted) setMuted(true);
  if (source === 'CAMERA' && wanted) cam.choose(OFF);
}

function setMuted(wanted) {
  muted = wanted;
  const track = first(mic.stream, 'audio');
  if (track) track.enabled = !muted;
  client?.setMuted('MICROPHONE', muted);
  press('mute', muted);
  label('mute', muted ? 'Unmute' : 'Mute');
  tiles?.refresh();
}

function showChat() {
  press('open-chat', chat.open);
  label('open-chat', chat.unread > 0 ? `Chat (${chat.unread})` : 'Chat');
}

function end(why) {
  tiles?.end();
  [client, tiles] = [null, null];
  if (screen.stream) screen.toggle();
  press('hand', false);
  for (const id of ['count', 'tally']) byId(id).hidden = true;
  byId('room').hidden = true;
  byId('lobby').hidden = false;
  say(why);
}

async function copyLink() {
  try {
    await navigator.clipboard.writeText(location.href);
    say('The link to this room is copied.');
  } catch {
    say(`The link to this room: ${location.href}`);
  }
}

const ACTIONS = {
  M: () => setMuted(!muted),
  V: () => cam.choose(cam.open ? OFF : ''),
  S: () => screen.toggle(),
  H: () => {
    const raised = byId('hand').getAttribute('aria-pressed') !== 'true';
    press('hand', raised);
    client?.setAttributes({ hand: raised ? 'raised' : '' });
  },
  L: () => {
    tiles.speakerView = !tiles.speakerView;
    press('layout', tiles.speakerView);
    tiles.refresh();
  },
  C: () => {
    chat.open = !chat.open;
    showChat();
  },
};

function pressed(event) {
  if (!client || event.ctrlKey || event.altKey || event.metaKey || event.repeat || event.target.matches('input, select')) return;
  const action = ACTIONS[event.key.toUpperCase()];
  const id = { M: 'mute', V: 'video', S: 'screen', H: 'hand', L: 'layout', C: 'open-chat' }[event.key.toUpperCase()];
  if (!action || byId(id).disabled) return;
  event.preventDefault();
  action();
}

function bind() {
  byId('name').textContent = room;
  document.title = `Room ${room}`;
  byId('who').value = localStorage.getItem(NAME) ?? '';
  byId('join').addEventListener('submit', (event) => {
    event.preventDefault();
    join();
  });
  byId('camera').addEventListener('change', ({ target }) => cam.choose(target.value));
  byId('microphone').addEventListener('change', ({ target }) => mic.choose(target.value));
  byId('retry').addEventListener('click', openDevices);
  for (const [id, key] of [['mute', 'M'], ['video', 'V'], ['screen', 'S'], ['hand', 'H'], ['layout', 'L'], ['open-chat', 'C']]) {
    byId(id).addEventListener('click', () => ACTIONS[key]());
  }
  byId('invite').addEventListener('click', copyLink);
  byId('leave').addEventListener('click', () => client?.leave());
  byId('say').addEventListener('submit', async (event) => {
    event.preventDefault();
    const words = byId('words').value.trim();
    if (!words || !client) return;
    byId('words').value = '';
    const line = chat.add('You', words);
    try {
      await client.sendText(words);
    } catch (error) {
      chat.unsent(line);
      // To be sent again, unless something else is being written.
      byId('words').value ||= words;
      // Whoever is out reads why.
      if (client) say(`The message was not sent: ${error.message}`, 'error');
    }
  });
  addEventListener('keydown', pressed);
  addEventListener('pagehide', () => client?.leave());
  navigator.mediaDevices?.addEventListener('devicechange', async () => {
    const all = await fillMenus(cam, mic);
    await cam.plugged(all);
    await mic.plugged(all);
  });
}

bind();
openDevices();
window.room = { cam, mic, chat, screen, get client() { return client; }, get tiles() { return tiles; } };
