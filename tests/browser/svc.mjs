// Publishes Chromium's fake camera with spatial layers in one SSRC, plays it in another page in some of its layers, and
// prints what was seen: one line of JSON, a list with one entry a codec.
//
// node svc.mjs --base http://127.0.0.1:8080 --codecs AV1 [--scalability L3T3_KEY] [--layers 2,1,]
//
// Nothing instead of a layer is "Automatic".

import { choose, options, pause, picture, until, withBrowsers } from './browser.mjs';

const wanted = options({
  base: '', codecs: 'AV1', scalability: 'L3T3_KEY', layers: '2,1,0,2', seconds: 2, screenshot: '',
});
const codecs = wanted.codecs.split(',');
/** Two cores encode three layers of AV1, and decode one. */
const SMALL = 'width=1024&height=576&fps=15';
const setting = { deadline: 150000 * codecs.length, screenshot: wanted.screenshot };

async function publish(open, stream, codec) {
  const publisher = await open('chromium', `${wanted.base}/publish/${stream}?${SMALL}&scalability=${wanted.scalability}`);
  await choose(publisher, 'codec', `video/${codec}`);
  await publisher.evaluate(() => { document.getElementById('simulcast').checked = false; });
  await publisher.click('#go');
  await until(publisher, 'the publisher to be live', () => document.getElementById('state').textContent === 'Live');
  return publisher;
}

/** What is shown of a layer, some time after it was chosen. */
async function watch(page, layer) {
  await until(page, `layer ${layer} in the menu`, (rid) => [...document.getElementById('layer').options]
    .some((option) => option.value === rid), layer);
  await choose(page, 'layer', layer);
  await until(page, `layer ${layer}`, (rid) => rid === '' || window.player.server?.layer.current === rid, layer);
  await pause(500);
  const look = () => page.evaluate(async () => ({ ...(await window.player.stats()), at: performance.now() }));
  const before = await look();
  await pause(wanted.seconds * 1000);
  const after = await look();
  return {
    layer,
    width: after.width,
    height: after.height,
    codec: after.codec,
    bitrate: after.bitrate,
    fps: (1000 * (after.framesDecoded - before.framesDecoded)) / (after.at - before.at),
    pliCount: after.pliCount,
  };
}

async function run(open, codec) {
  const stream = `svc-${codec}`;
  const publisher = await publish(open, stream, codec);
  await until(publisher, 'all layers', (name) => fetch(`/api/streams/${name}`).then((response) => response.json())
    .then((info) => info.video?.layers.length > 2), stream);
  const viewer = await open('chromium', `${wanted.base}/${stream}`);
  await picture(viewer);
  const shown = [];
  for (const layer of wanted.layers.split(',')) shown.push(await watch(viewer, layer));
  const info = await viewer.evaluate((name) => fetch(`/api/streams/${name}`).then((r) => r.json()), stream);
  if (wanted.screenshot) await viewer.screenshot({ path: wanted.screenshot });
  await publisher.close();
  await viewer.close();
  return { codec, shown, layers: info.video.layers };
}

console.log(JSON.stringify(await withBrowsers(setting, async (open) => {
  const results = [];
  for (const codec of codecs) results.push(await run(open, codec));
  return results;
})));
