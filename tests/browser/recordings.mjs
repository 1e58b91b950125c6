// Looks at the list of recordings, plays the oldest one and seeks in it; prints what was seen as one line of JSON.
//
// node recordings.mjs --base http://127.0.0.1:8080 --seek 6 [--width 390 --height 844] [--screenshot FILE]

import { options, pause, until, withBrowsers } from './browser.mjs';

const wanted = options({ base: '', seek: 6, screenshot: '', width: 1280, height: 800 });
const setting = {
  deadline: 120000,
  screenshot: wanted.screenshot,
  size: { width: wanted.width, height: wanted.height },
};

/** Goes somewhere, and returns when of the recording the picture is that is shown then. */
function seek(page, seconds) {
  return page.evaluate((to) => new Promise((resolve) => {
    const video = document.getElementById('video');
    video.currentTime = to;
    const look = (_, { mediaTime, width, height }) => {
      if (Math.abs(mediaTime - to) < 1 && !video.seeking) resolve({ mediaTime, width, height });
      else video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback(look);
  }), seconds);
}

const seen = await withBrowsers(setting, async (open) => {
  const page = await open('chromium', `${wanted.base}/recordings`);
  const rows = await until(page, 'a list', () => [...document.querySelectorAll('table.recordings tbody tr')]
    .map((row) => [...row.cells].map((one) => one.textContent)));
  await until(page, 'a row', () => document.querySelectorAll('tbody tr').length > 0);
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  if (wanted.screenshot) await page.screenshot({ path: wanted.screenshot });
  const address = await page.evaluate(() => [...document.querySelectorAll('tbody td:first-child a')].at(-1).href);
  await page.goto(address);
  const duration = await until(page, 'the duration', () => document.getElementById('video').duration);
  const seekable = await page.evaluate(() => {
    const { seekable } = document.getElementById('video');
    return seekable.length ? seekable.end(seekable.length - 1) : 0;
  });
  await page.evaluate(() => document.getElementById('video').play());
  const forward = await seek(page, wanted.seek);
  await pause(1000);
  const after = await page.evaluate(() => document.getElementById('video').currentTime);
  if (wanted.screenshot) await page.screenshot({ path: wanted.screenshot.replace(/(\.png)?$/, '-play.png') });
  const back = await seek(page, 1);
  const state = await page.evaluate(() => document.getElementById('state').textContent);
  const sound = await page.evaluate(() => document.getElementById('video').webkitAudioDecodedByteCount);
  return { rows, overflow, duration, seekable, forward, after, back, state, sound };
});
console.log(JSON.stringify(seen));
