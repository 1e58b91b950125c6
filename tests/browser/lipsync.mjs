// Plays a stream in Chromium and prints how far apart picture and sound are that are played at the same moment, in ms, and how
// old they are: one line of JSON.
//
// node lipsync.mjs --url http://127.0.0.1:8080/demo

import { options, pause, picture, until, withBrowsers } from './browser.mjs';

const wanted = options({ url: '', settle: 6, looks: 20, screenshot: '' });

/** The capture times of what is played, which sender reports tell. */
const played = () => window.player.pc.getStats().then((report) => {
  const of = (kind) => [...report.values()].find((one) => one.type === 'inbound-rtp' && one.kind === kind);
  return { video: of('video')?.estimatedPlayoutTimestamp ?? null, audio: of('audio')?.estimatedPlayoutTimestamp ?? null };
});

const seen = await withBrowsers({ deadline: 120000, screenshot: wanted.screenshot }, async (open) => {
  const page = await open('chromium', wanted.url);
  await picture(page);
  await page.click('#unmute');
  await until(page, 'sender reports', async () => {
    const report = await window.player.pc.getStats();
    const media = [...report.values()].filter((one) => one.type === 'inbound-rtp');
    return media.length === 2 && media.every((one) => one.estimatedPlayoutTimestamp);
  });
  // A browser moves the picture to the sound by and by.
  await pause(wanted.settle * 1000);
  const apart = [];
  for (let n = 0; n < wanted.looks; n += 1) {
    const { video, audio } = await page.evaluate(played);
    apart.push(video - audio);
    await pause(100);
  }
  apart.sort((a, b) => a - b);
  const latency = await page.evaluate(() => document.getElementById('latency').textContent);
  return { apartMs: apart[Math.floor(apart.length / 2)], leastMs: apart[0], mostMs: apart.at(-1), latency };
});
console.log(JSON.stringify(seen));
