// Plays one recording; the one after it follows by itself.

import { withToken } from './page.js';
import { duration, fetchRecordings, path, size, start } from './recordings.js';

const byId = (id) => document.getElementById(id);
const prefix = '/recordings/play/';
const file = location.pathname.slice(prefix.length).split('/').map(decodeURIComponent).join('/');
const video = byId('video');
const STEP = 10;

/** Goes to this many seconds before or after what is shown. */
function step(seconds) {
  const end = Number.isFinite(video.duration) ? video.duration : Infinity;
  video.currentTime = Math.min(Math.max(0, video.currentTime + seconds), end);
}

function lead(id, recording) {
  const link = byId(id);
  link.hidden = !recording;
  if (recording) link.href = withToken(prefix + path(recording.file));
}

async function describe() {
  const all = await fetchRecordings();
  const recording = all.find((one) => one.file === file);
  if (!recording) throw new Error('This recording is not there any more.');
  byId('name').textContent = recording.stream;
  document.title = `${recording.stream}, ${start(recording)}`;
  const cut = { recording: ' · is being recorded', unfinished: ' · cut off' }[recording.state] ?? '';
  byId('state').textContent = `${start(recording)} · ${duration(recording.duration_ms)} · ${size(recording.size)}${cut}`;
  // Newest first.
  const ofStream = all.filter((one) => one.stream === recording.stream);
  const at = ofStream.indexOf(recording);
  lead('earlier', ofStream[at + 1]);
  lead('later', ofStream[at - 1]);
}

function fail(error) {
  byId('state').className = 'error';
  byId('state').textContent = error instanceof TypeError ? 'The server does not answer.' : error.message;
}

byId('name').textContent = file;
byId('download').href = withToken(`/recordings/files/${path(file)}?download=1`);
byId('back').addEventListener('click', () => step(-STEP));
byId('forward').addEventListener('click', () => step(STEP));
byId('speed').addEventListener('change', ({ target }) => { video.playbackRate = Number(target.value); });
video.addEventListener('error', () => fail(new Error('This browser does not play the recording: download it.')));
video.addEventListener('ended', () => {
  if (!byId('later').hidden) location.assign(`${byId('later').href}#play`);
});
video.src = withToken(`/recordings/files/${path(file)}`);
if (location.hash === '#play') video.play().catch(() => {});
describe().catch(fail);
