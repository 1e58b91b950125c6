// Publishes a browser's fake camera and plays it in another page, of the same browser or another; prints what was seen
// as one line of JSON: a list with one entry a run.
//
// node publish.mjs --base http://127.0.0.1:8080 --runs chromium:firefox:VP8,… --seconds 8 [--screenshot FILE]
// A run is publisher:viewer:codec, in a stream of the name publisher-viewer-codec.

import { choose, options, pause, picture, until, withBrowsers } from './browser.mjs';

const wanted = options({ base: '', runs: 'chromium:chromium:VP8', seconds: 8, screenshot: '' });
const runs = wanted.runs.split(',').map((run) => run.split(':'));
const setting = { deadline: (wanted.seconds + 60) * runs.length * 1000, screenshot: wanted.screenshot };
/** Two browsers encode and decode on two cores. */
const SMALL = 'width=1024&height=576&fps=15';
/** The last part of the time is for the lowest layer. */
const LOWEST = 3;

async function run(open, [publishing, watching, codec]) {
  const stream = `${publishing}-${watching}-${codec}`;
  const publisher = await open(publishing, `${wanted.base}/publish/${stream}?${SMALL}`);
  await choose(publisher, 'codec', `video/${codec}`);
  await publisher.click('#go');
  await until(publisher, 'the publisher to be live', () => document.getElementById('state').textContent === 'Live');
  const viewer = await open(watching, `${wanted.base}/${stream}`);
  await picture(viewer);
  await viewer.click('#unmute');
  const begun = await viewer.evaluate(() => window.player.stats());
  await pause((wanted.seconds - LOWEST) * 1000);
  const played = await viewer.evaluate(() => window.player.stats());
  // Browsers begin with the lowest layer, and add the others as they trust the network.
  const info = await until(viewer, 'the sizes of all layers', async (name) => {
    const now = await fetch(`/api/streams/${name}`).then((response) => response.json());
    return now.video.layers.every((layer) => layer.height) && now;
  }, stream);
  // Fake microphones beep once a second.
  const level = await until(viewer, 'how loud it is', async (name) => {
    const now = await fetch(`/api/v1/streams/${name}`).then((response) => response.json());
    return now.audio.level_dbov > -100 && now.audio.level_dbov;
  }, stream);
  // By itself, the viewer comes up to the highest that is sent.
  const begin = Date.now();
  await until(viewer, 'the highest layer', async (name) => {
    const now = await fetch(`/api/streams/${name}`).then((response) => response.json());
    const { height } = await window.player.stats();
    return height === now.video.layers.find((layer) => layer.active)?.height;
  }, stream);
  const topAfterMs = Date.now() - begin;
  await until(viewer, 'three layers in the menu', () => document.getElementById('layer').options.length === 4);
  await choose(viewer, 'layer', info.video.layers.at(-1).rid);
  await pause(LOWEST * 1000);
  const lowest = await viewer.evaluate(() => window.player.stats());
  const sent = await publisher.evaluate(() => window.publisher.stats());
  const state = await viewer.evaluate(() => document.getElementById('state').textContent);
  await viewer.close();
  await publisher.close();
  return { begun, played, lowest, topAfterMs, info, level, sent, state };
}

const seen = await withBrowsers(setting, async (open) => {
  const results = [];
  for (const one of runs) results.push(await run(open, one));
  return results;
});
console.log(JSON.stringify(seen));
