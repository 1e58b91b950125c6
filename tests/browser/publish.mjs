// Publishes Chromium's fake camera and plays it in another page; prints what was seen as one line of JSON.
//
// node publish.mjs --base http://127.0.0.1:8080 --stream camera --codec video/VP8 --seconds 12

import { options, withPage } from './chromium.mjs';

const wanted = options({ base: '', stream: 'camera', codec: 'video/VP8', seconds: 12 });

const result = await withPage((wanted.seconds + 60) * 1000, async (publisher) => {
  await publisher.goto(`${wanted.base}/publish/${wanted.stream}`);
  await publisher.selectOption('#codec', wanted.codec);
  await publisher.click('#go');
  await publisher.waitForFunction(() => document.getElementById('state').textContent === 'Live', null, { timeout: 20000 });
  const viewer = await publisher.context().newPage();
  await viewer.goto(`${wanted.base}/${wanted.stream}`);
  await viewer.waitForFunction(() => document.getElementById('video').videoWidth > 0, null, { timeout: 20000 });
  await viewer.click('#unmute');
  await viewer.waitForTimeout(wanted.seconds * 1000 - 3000);
  const played = await viewer.evaluate(() => window.player.stats());
  const info = await (await fetch(`${wanted.base}/api/streams/${wanted.stream}`)).json();
  await viewer.waitForFunction(() => document.getElementById('layer').options.length === 4);
  await viewer.selectOption('#layer', info.video.layers.at(-1).rid);
  await viewer.waitForTimeout(3000);
  const lowest = await viewer.evaluate(() => window.player.stats());
  const sent = await publisher.evaluate(() => window.publisher.stats());
  return { played, lowest, info, sent };
});
console.log(JSON.stringify(result));
