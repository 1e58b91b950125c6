// Publishes Chromium's fake camera, watches the stream that is encoded anew from it, and lets the load tool's viewers
// join; prints how often the publisher was asked for keyframes, as one line of JSON.
//
// node reencode.mjs --base http://127.0.0.1:8080 --from camera --stream demo --load 'sfu-load --whep … --json'

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

import { choose, options, pause, picture, until, withBrowsers } from './browser.mjs';

const wanted = options({ base: '', from: 'camera', stream: 'demo', codec: 'H264', load: '', screenshot: '' });

/** In the page: keyframe requests that the publisher got on all layers. */
async function requests() {
  const stats = await window.publisher.stats();
  return stats.reduce((sum, { pliCount }) => sum + pliCount, 0);
}

const seen = await withBrowsers({ deadline: 100000, screenshot: wanted.screenshot }, async (open) => {
  const publisher = await open('chromium', `${wanted.base}/publish/${wanted.from}`);
  await choose(publisher, 'codec', `video/${wanted.codec}`);
  await publisher.click('#go');
  const viewer = await open('chromium', `${wanted.base}/${wanted.stream}`);
  await picture(viewer);
  await viewer.click('#unmute');
  // Browsers add their layers one after the other; each is asked for a first keyframe.
  await until(publisher, 'the publisher to send all layers', async (name) => {
    const now = await fetch(`/api/streams/${name}`).then((response) => response.json());
    return now.video.layers.every((layer) => layer.active);
  }, wanted.from);
  await pause(4000);
  const before = { requests: await publisher.evaluate(requests), ...await viewer.evaluate(() => window.player.stats()) };
  const [program, ...args] = wanted.load.split(' ');
  const { stdout } = await promisify(execFile)(program, args);
  const after = { requests: await publisher.evaluate(requests), ...await viewer.evaluate(() => window.player.stats()) };
  return { before, after, load: JSON.parse(stdout.trim().split('\n').at(-1)) };
});
console.log(JSON.stringify(seen));
