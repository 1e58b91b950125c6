// Publishes Chromium's fake camera by WHIP and plays it by HLS, with the browser's own player, and with hls.js and OvenPlayer (which plays
// by hls.js) in pages of another origin; prints what was seen as one line of JSON.
//
// node hls.mjs --base http://127.0.0.1:8080 --stream demo --seconds 10 [--publish 0] [--keep 20] [--screenshot FILE]
// With --publish 0 somebody else publishes. With --keep the publisher goes on for so many seconds after the players, and
// says `playing` on a line of its own before that.

import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

import { choose, options, pause, until, withBrowsers } from './browser.mjs';

const wanted = options({ base: '', stream: 'demo', seconds: 10, publish: 1, keep: 0, codec: 'H264', screenshot: '' });
const setting = { deadline: (wanted.seconds * 2 + wanted.keep + 90) * 1000, screenshot: wanted.screenshot };
const address = `${wanted.base}/hls/${wanted.stream}/index.m3u8`;

const file = (path) => readFileSync(createRequire(import.meta.url).resolve(path));
const scripts = { '/hls.js': file('hls.js/dist/hls.min.js'), '/ovenplayer.js': file('ovenplayer') };
const pages = {
  hlsjs: `<!doctype html><video id="video" autoplay muted playsinline></video><script src="/hls.js"></script><script>
  window.faults = [];
  window.hls = new Hls();
  hls.on(Hls.Events.ERROR, (_, data) => faults.push(data.details + (data.fatal ? ' (fatal)' : '')));
  hls.loadSource(${JSON.stringify(address)});
  hls.attachMedia(document.getElementById('video'));
</script>`,
  ovenplayer: `<!doctype html><div id="player"></div><script src="/hls.js"></script><script src="/ovenplayer.js"></script><script>
  window.faults = [];
  const player = OvenPlayer.create('player', { autoStart: true, mute: true, sources: [{ type: 'hls', file: ${JSON.stringify(address)} }] });
  player.on('error', (error) => faults.push(error.code + ' ' + error.message));
  player.on('ready', () => { document.querySelector('#player video').id = 'video'; });
</script>`,
};

/** Another origin: what the pages load from the server needs its CORS headers. */
function serve() {
  const server = createServer((request, response) => {
    const script = scripts[request.url];
    response.setHeader('Content-Type', script ? 'text/javascript' : 'text/html');
    response.end(script ?? pages[request.url.slice(1)]);
  });
  return new Promise((resolve) => { server.listen(0, '127.0.0.1', () => resolve(server)); });
}

function figures() {
  const video = document.getElementById('video');
  const quality = video.getVideoPlaybackQuality();
  return {
    time: video.currentTime,
    height: video.videoHeight,
    frames: quality.totalVideoFrames,
    dropped: quality.droppedVideoFrames,
    audioBytes: video.webkitAudioDecodedByteCount,
    error: video.error?.message ?? null,
    state: document.getElementById('state')?.textContent ?? null,
    faults: window.faults ?? [],
    levels: window.hls?.levels.length ?? null,
    latencyMs: window.hls?.playingDate ? Date.now() - window.hls.playingDate : null,
  };
}

/** Plays for the time, and tells what was seen at its beginning and its end. */
async function play(open, url) {
  const player = await open('chromium', url);
  await until(player, `pictures at ${url}`, () => document.getElementById('video')?.currentTime > 0.5);
  const begun = await player.evaluate(figures);
  await pause(wanted.seconds * 1000);
  const played = await player.evaluate(figures);
  await player.close();
  return { begun, played };
}

const server = await serve();
const seen = await withBrowsers(setting, async (open) => {
  if (wanted.publish) {
    const publisher = await open('chromium', `${wanted.base}/publish/${wanted.stream}`);
    await choose(publisher, 'codec', `video/${wanted.codec}`);
    await publisher.click('#go');
    await until(publisher, 'the publisher to be live', () => document.getElementById('state').textContent === 'Live');
  }
  const origin = `http://127.0.0.1:${server.address().port}/`;
  while (!(await fetch(address)).ok) await pause(200);
  const watcher = await open('chromium', `${wanted.base}/`);
  const can = await watcher.evaluate(() => document.createElement('video').canPlayType('application/vnd.apple.mpegurl'));
  await watcher.close();
  const native = can ? await play(open, `${wanted.base}/hls/${wanted.stream}`) : null;
  const [hlsjs, ovenplayer] = await Promise.all(Object.keys(pages).map((name) => play(open, `${origin}${name}`)));
  if (wanted.keep) {
    console.log('playing');
    await pause(wanted.keep * 1000);
  }
  return { native, hlsjs, ovenplayer };
});
server.close();
console.log(JSON.stringify(seen));
