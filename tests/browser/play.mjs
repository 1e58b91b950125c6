// Opens a player page, plays it and prints what was seen as one line of JSON.
//
// node play.mjs --url http://127.0.0.1:8080/demo --seconds 10 [--screenshot FILE] [--layer RID]
// `layer` is chosen in the page's menu in the middle of the time.

import { readFileSync } from 'node:fs';

import { options, withPage } from './chromium.mjs';

const wanted = options({ url: '', seconds: 10, settle: 2, screenshot: '', layer: '', width: 1280, height: 800 });

function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] : null;
}

const result = await withPage((wanted.seconds + wanted.settle + 60) * 1000, async (page) => {
  const started = Date.now();
  await page.goto(wanted.url);
  await page.waitForFunction(() => document.getElementById('video').videoWidth > 0, null, { timeout: 30000 });
  const firstPicture = Date.now() - started;
  await page.click('#unmute');
  await page.waitForTimeout(wanted.settle * 1000);
  // Evaluated, not added as a script: the page's policy rightly forbids foreign scripts.
  await page.evaluate(readFileSync(new URL('./timecode.js', import.meta.url), 'utf8'));
  await page.evaluate(() => { window.seen = window.watchTimecode(document.getElementById('video')); });
  const before = await page.evaluate(() => window.player.stats());
  await page.waitForTimeout(wanted.seconds * 500);
  let chosenAt = null;
  if (wanted.layer) {
    await page.selectOption('#layer', wanted.layer);
    chosenAt = await page.evaluate(() => performance.now());
  }
  await page.waitForTimeout(wanted.seconds * 500);
  const after = await page.evaluate(() => window.player.stats());
  const session = await page.evaluate(() => window.player.session.figures());
  const seen = await page.evaluate(() => window.seen);
  if (wanted.screenshot) {
    await page.click('#figures-button');
    await page.waitForTimeout(1100);
    await page.screenshot({ path: wanted.screenshot });
  }
  const state = await page.textContent('#state');
  return { firstPicture, before, after, session, seen, chosenAt, state };
}, { width: wanted.width, height: wanted.height });

const { seen, before, after } = result;
console.log(JSON.stringify({
  firstPictureMs: result.firstPicture,
  state: result.state,
  before,
  after,
  session: result.session,
  framesShown: seen.frames,
  longestGapMs: Math.max(0, ...seen.gaps),
  sizes: seen.sizes.map(({ size, at }) => ({ size, afterChoiceMs: result.chosenAt === null ? null : at - result.chosenAt })),
  timecode: {
    read: seen.latencies.length,
    unreadable: seen.unreadable,
    p50Ms: quantile(seen.latencies, 0.5),
    p95Ms: quantile(seen.latencies, 0.95),
    maxMs: seen.latencies.length ? Math.max(...seen.latencies) : null,
  },
}));
