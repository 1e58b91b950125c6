// Publishes Chromium's fake camera with temporal layers, plays it in another page, and prints what a viewer saw of it who
// wanted fewer frames for a while: one line of JSON, a list with one entry a codec. With --stream it plays that one, which
// somebody else publishes.
//
// node temporal.mjs --base http://127.0.0.1:8080 --codecs VP8,H264,AV1 [--stream NAME] [--screenshot FILE]

import { choose, options, pause, picture, until, withBrowsers } from './browser.mjs';

const wanted = options({ base: '', codecs: 'VP8', stream: '', seconds: 4, screenshot: '' });
const codecs = wanted.codecs.split(',');
const setting = { deadline: 120000 * codecs.length, screenshot: wanted.screenshot };

/** What came in the next seconds. */
async function watch(page) {
  const look = () => page.evaluate(async () => ({ ...(await window.player.stats()), at: performance.now() }));
  const before = await look();
  await pause(wanted.seconds * 1000);
  const after = await look();
  return {
    fps: (1000 * (after.framesDecoded - before.framesDecoded)) / (after.at - before.at),
    height: after.height,
    pliCount: after.pliCount,
    codec: after.codec,
    layer: await page.evaluate(() => window.player.server.layer),
    why: await page.evaluate(() => document.getElementById('why').textContent),
  };
}

/** The session's temporal limit is this one. */
function limited(page, id) {
  const asked = (expected) => window.player.server?.layer.current_temporal === expected;
  return until(page, `temporal layers up to ${id}`, asked, id);
}

/** Publishes with two temporal layers, as the stream of that name. */
async function publish(open, stream, codec) {
  const publisher = await open('chromium', `${wanted.base}/publish/${stream}?scalability=L1T2`);
  await choose(publisher, 'codec', `video/${codec}`);
  // One layer, so that all of the machine's time is for its frames.
  await publisher.evaluate(() => { document.getElementById('simulcast').checked = false; });
  await publisher.click('#go');
  await until(publisher, 'the publisher to be live', () => document.getElementById('state').textContent === 'Live');
  return publisher;
}

/** How loud each of the stream's audio tracks is. */
async function hear(viewer) {
  await viewer.click('#unmute');
  const levels = [];
  for (const track of ['1', '0', '1']) {
    await choose(viewer, 'audio', track);
    const is = (wanted) => window.player.server.layer.audio === wanted;
    await until(viewer, `audio track ${track}`, is, track);
    // What was before is still in the buffer, and in the level.
    await pause(1000);
    levels.push(await viewer.evaluate(() => window.player.stats().then(({ audioLevel }) => audioLevel)));
  }
  return levels;
}

/** What a viewer sees at all frames, at fewer, and at all again. */
async function view(open, stream) {
  const viewer = await open('chromium', `${wanted.base}/${stream}`);
  await picture(viewer);
  const info = await until(viewer, 'two temporal layers', async (name) => {
    const now = await fetch(`/api/streams/${name}`).then((response) => response.json());
    return now.video.layers[0].temporal_layers > 1 && now;
  }, stream);
  await until(viewer, 'the menu', () => document.getElementById('rate').checkVisibility());
  // By itself it comes up to all of them.
  await limited(viewer, null);
  const full = await watch(viewer);
  await choose(viewer, 'rate', 'fewer');
  await limited(viewer, 0);
  const fewer = await watch(viewer);
  if (wanted.screenshot) await viewer.screenshot({ path: wanted.screenshot });
  await choose(viewer, 'rate', '');
  await limited(viewer, null);
  const back = await watch(viewer);
  const sounds = await viewer.evaluate(() => [...document.getElementById('audio').options].map(({ text }) => text));
  const heard = sounds.length > 1 ? await hear(viewer) : [];
  await viewer.close();
  return { info, full, fewer, back, sounds, heard };
}

async function run(open, codec) {
  const stream = `temporal-${codec}`;
  const publisher = await publish(open, stream, codec);
  const seen = await view(open, stream);
  await publisher.close();
  return { codec, ...seen };
}

const seen = await withBrowsers(setting, async (open) => {
  if (wanted.stream) return [{ codec: wanted.codecs, ...(await view(open, wanted.stream)) }];
  const results = [];
  for (const codec of codecs) results.push(await run(open, codec));
  return results;
});
console.log(JSON.stringify(seen));
