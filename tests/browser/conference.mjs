// Two people in LiveKit's own meeting page (VideoConference of @livekit/components-react): they see each other, write, show a screen, mute,
// and go on after each way of reconnecting that livekit-client can simulate. Prints what was seen as one line of JSON.
//
// node conference.mjs --url ws://127.0.0.1:8080 --ann TOKEN --ben TOKEN [--screenshot FILE]

import { createServer } from 'node:http';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

import { options, until, withBrowsers } from './browser.mjs';

const wanted = options({ url: '', ann: '', ben: '', screenshot: '' });
const setting = { deadline: 200000, screenshot: wanted.screenshot };
const PAGE = '<!doctype html><meta charset=utf-8><title>meeting</title><link rel=stylesheet href=/conference.css><div id=root></div><script src=/conference.js></script>';
const SCENARIOS = ['signal-reconnect', 'full-reconnect', 'resume-reconnect', 'migration', 'node-failure', 'leave-full-reconnect'];

/** Cameras are for pages from localhost alone. */
async function serve() {
  const folder = dirname(fileURLToPath(import.meta.url));
  const made = await build({
    absWorkingDir: folder,
    entryPoints: ['conference.jsx'],
    outdir: folder,
    bundle: true,
    write: false,
    jsx: 'automatic',
    define: { 'process.env.NODE_ENV': '"production"' },
  });
  const files = new Map(made.outputFiles.map((file) => [file.path.replace(/.*\//, '/'), file.text]));
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost');
    response.setHeader('content-type', { js: 'text/javascript', css: 'text/css' }[pathname.split('.')[1]] ?? 'text/html; charset=utf-8');
    response.end(files.get(pathname) ?? PAGE);
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return server;
}

/** In the page: the other one's tile of this source, or what it says. */
const tile = ([source, what]) => {
  const found = document.querySelector(`.lk-participant-tile[data-lk-source=${source}][data-lk-local-participant=false]`);
  const video = found?.querySelector('video');
  switch (what) {
    case 'shown': return video?.videoWidth > 0 && [video.videoWidth, video.videoHeight];
    case 'gone': return !video;
    case 'silent': return found?.dataset.lkAudioMuted === 'true';
    case 'dark': return found?.dataset.lkVideoMuted === 'true';
    case 'rated': return found?.querySelector('[data-lk-quality=excellent],[data-lk-quality=good],[data-lk-quality=poor]')?.dataset.lkQuality;
    default: return found?.querySelector('.lk-participant-name')?.textContent;
  }
};

/** In the page: pictures of the other one come, and it is there once. */
const moves = () => {
  const video = document.querySelector('.lk-participant-tile[data-lk-source=camera][data-lk-local-participant=false] video');
  const count = video?.getVideoPlaybackQuality().totalVideoFrames ?? 0;
  const { last } = window;
  window.last = { video, count };
  return last?.video === video && count > last.count && window.room.state === 'connected' && window.room.remoteParticipants.size === 1;
};

/** In the page: the client breaks its connection in this way, or lets the server do so. */
const begin = (scenario) => {
  const { room } = window;
  window.back = false;
  const leaves = ['reconnecting', 'signalReconnecting'];
  const away = new Promise((resolve) => { for (const event of leaves) room.once(event, resolve); });
  away.then(() => { room.once('reconnected', () => { window.back = true; }); });
  // It is done when the client has what it waits for, which does not come in each of them.
  room.simulateScenario(scenario).catch(() => {});
};

const seen = await withBrowsers(setting, async (open) => {
  const server = await serve();
  try {
    const address = (token) => `http://localhost:${server.address().port}/?url=${encodeURIComponent(wanted.url)}&token=${token}`;
    const ann = await open('chromium', address(wanted.ann));
    const ben = await open('chromium', address(wanted.ben));
    const result = { reconnected: [] };
    for (const page of [ann, ben]) await until(page, 'the other one', tile, ['camera', 'shown']);
    result.name = await until(ben, "ann's name", tile, ['camera', 'name']);
    result.quality = await until(ben, 'how good her connection is', tile, ['camera', 'rated']);
    await ann.click('.lk-chat-toggle');
    await ann.fill('.lk-chat-form-input', 'hello');
    await ann.click('.lk-chat-form-button');
    await ben.click('.lk-chat-toggle');
    result.chat = await until(ben, 'what she writes', () => document.querySelector('.lk-message-body')?.textContent);
    await ann.click('.lk-button[data-lk-source=screen_share]');
    result.screen = await until(ben, 'her screen', tile, ['screen_share', 'shown']);
    await ann.click('.lk-button[data-lk-source=screen_share]');
    await until(ben, 'no screen', tile, ['screen_share', 'gone']);
    await ann.click('.lk-button[data-lk-source=microphone]');
    await until(ben, 'her to be silent', tile, ['camera', 'silent']);
    await ann.click('.lk-button[data-lk-source=camera]');
    await until(ben, 'her to be dark', tile, ['camera', 'dark']);
    await ann.click('.lk-button[data-lk-source=camera]');
    for (const page of [ann, ben]) await until(page, 'pictures that move', moves);
    for (const scenario of SCENARIOS) {
      await ann.evaluate(begin, scenario);
      await until(ann, `ann to be back after ${scenario}`, () => window.back);
      for (const page of [ann, ben]) await until(page, `pictures after ${scenario}`, moves);
      result.reconnected.push(scenario);
    }
    result.faults = [...await ann.evaluate(() => window.faults), ...await ben.evaluate(() => window.faults)];
    await ann.click('.lk-disconnect-button');
    await until(ben, 'ann to be gone', () => document.querySelectorAll('.lk-participant-tile').length === 1);
    return result;
  } finally {
    server.close();
  }
});
console.log(JSON.stringify(seen));
