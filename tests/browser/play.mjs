// Opens a player page, plays it and prints what was seen as one line of JSON.
//
// node play.mjs --url http://127.0.0.1:8080/demo --seconds 10 [--browser firefox] [--screenshot FILE] [--layers 1,0,]
// Each of `layers` is chosen in the page's menu in turn, evenly over the time; nothing is "Automatic".

import { readFileSync } from 'node:fs';

import { choose, options, pause, picture, until, withBrowsers } from './browser.mjs';

const wanted = options({
  url: '', browser: 'chromium', seconds: 10, settle: 2, screenshot: '', layers: 'none', width: 1280, height: 800,
});
const layers = wanted.layers === 'none' ? [] : wanted.layers.split(',');
const setting = {
  deadline: (wanted.seconds + wanted.settle + 60) * 1000,
  screenshot: wanted.screenshot,
  size: { width: wanted.width, height: wanted.height },
};

function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] : null;
}

const result = await withBrowsers(setting, async (open) => {
  const page = await open(wanted.browser, 'about:blank');
  const started = Date.now();
  await page.goto(wanted.url);
  await picture(page);
  const firstPicture = Date.now() - started;
  await page.click('#unmute');
  await pause(wanted.settle * 1000);
  // Evaluated, not added as a script: the page's policy rightly forbids foreign scripts.
  await page.evaluate(readFileSync(new URL('./timecode.js', import.meta.url), 'utf8'));
  await page.evaluate(() => { window.seen = window.watchTimecode(document.getElementById('video')); });
  const before = await page.evaluate(() => window.player.stats());
  const part = (wanted.seconds * 1000) / (layers.length + 1);
  await pause(part);
  const choices = [];
  for (const layer of layers) {
    await until(page, `layer ${layer} in the menu`, (rid) => [...document.getElementById('layer').options]
      .some((option) => option.value === rid), layer);
    choices.push({ layer, at: await choose(page, 'layer', layer) });
    await pause(part);
  }
  const after = await page.evaluate(() => window.player.stats());
  const session = await page.evaluate(() => window.player.session.figures());
  const seen = await page.evaluate(() => window.seen);
  if (wanted.screenshot) {
    await page.click('#figures-button');
    await pause(1100);
    await page.screenshot({ path: wanted.screenshot });
  }
  const state = await page.evaluate(() => document.getElementById('state').textContent);
  const latency = await page.evaluate(() => document.getElementById('latency').textContent);
  const offersFewer = await page.evaluate(() => document.getElementById('rate').checkVisibility());
  return { firstPicture, before, after, session, seen, choices, state, latency, offersFewer };
});

const { seen, before, after } = result;
const longest = (gaps) => Math.max(0, ...gaps.map(({ ms }) => ms));

/** What a choice in the menu did: the size that was shown then, after how long, and the longest freeze until the next. */
function effect({ layer, at }, index) {
  const end = result.choices[index + 1]?.at ?? Infinity;
  const within = (moment) => moment > at && moment <= end;
  const change = seen.sizes.find((size) => within(size.at));
  const size = change?.size ?? seen.sizes.findLast((earlier) => earlier.at <= at)?.size;
  const longestGapMs = longest(seen.gaps.filter((gap) => within(gap.at)));
  return { layer, size, afterMs: change ? change.at - at : null, longestGapMs };
}

console.log(JSON.stringify({
  firstPictureMs: result.firstPicture,
  state: result.state,
  latency: result.latency,
  offersFewer: result.offersFewer,
  before,
  after,
  session: result.session,
  framesShown: seen.frames,
  longestGapMs: longest(seen.gaps),
  sizes: seen.sizes.map(({ size }) => size),
  choices: result.choices.map(effect),
  timecode: {
    read: seen.latencies.length,
    unreadable: seen.unreadable,
    p50Ms: quantile(seen.latencies, 0.5),
    lastP50Ms: quantile(seen.latencies.slice(-60), 0.5),
    p95Ms: quantile(seen.latencies, 0.95),
    maxMs: seen.latencies.length ? Math.max(...seen.latencies) : null,
  },
}));
