// Goes live in the studio with a fake camera and microphone, stays for so many seconds, and prints what was seen as one
// line of JSON.
//
// node onair.mjs --base http://127.0.0.1:8080 --stream show --codec H264 --seconds 20 [--browser firefox]
//   [--screenshot FILE]

import { choose, options, pause, until, withBrowsers } from './browser.mjs';

const wanted = options({ base: '', stream: 'show', codec: 'H264', seconds: 20, browser: 'chromium', screenshot: '' });
const setting = { deadline: (wanted.seconds + 60) * 1000, screenshot: wanted.screenshot };

const seen = await withBrowsers(setting, async (open) => {
  const studio = await open(wanted.browser, `${wanted.base}/studio/${wanted.stream}`);
  await until(studio, 'the camera', () => window.studio.cam.open && window.studio.mic.open);
  await choose(studio, 'codec', `video/${wanted.codec}`);
  await studio.click('#go');
  await until(studio, 'the studio to be live', () => document.getElementById('state').textContent === 'Live');
  await pause(wanted.seconds * 1000);
  const figures = await studio.evaluate(() => document.getElementById('figures').innerText);
  const { reconnects, state } = await studio.evaluate(() => ({ ...window.studio.live, sender: null }));
  if (wanted.screenshot) await studio.screenshot({ path: wanted.screenshot });
  return { figures, reconnects, state };
});
console.log(JSON.stringify(seen));
