// Kills a publisher, starts it again, and prints what its viewers in Chromium saw of that as one line of JSON.
//
// node returns.mjs --base http://127.0.0.1:8080 --stream camera --publisher 'gst-launch-1.0 …' --viewers 2 --away 2

import { spawn } from 'node:child_process';

import { options, pause, picture, until, withBrowsers } from './browser.mjs';

const wanted = options({ base: '', stream: 'camera', publisher: '', viewers: 2, away: 2, screenshot: '' });

/** Starts the publisher; what it says goes where this script's errors go. */
function publish() {
  const [program, ...args] = wanted.publisher.split(' ');
  return spawn(program, args, { stdio: ['ignore', 2, 2] });
}

/** In the page: notes when each picture was shown, and when its last packet had come. */
function watch() {
  const video = document.getElementById('video');
  window.shown = [];
  window.received = [];
  const next = (now, { receiveTime }) => {
    window.shown.push(now);
    window.received.push(receiveTime);
    video.requestVideoFrameCallback(next);
  };
  video.requestVideoFrameCallback(next);
}

/** In the page: when the publisher began that came after `killed`, on this page's clock. */
async function began([stream, killed]) {
  const info = await fetch(`/api/streams/${stream}`).then((r) => r.json()).catch(() => null);
  const at = info?.live ? performance.now() - info.uptime_ms : 0;
  return at > killed ? at : null;
}

/** In the page: whether pictures have come for a second since then. */
function goesOn(since) {
  const first = window.shown.find((at) => at > since);
  return first && window.shown.at(-1) > first + 1000;
}

let publisher = publish();
try {
  const result = await withBrowsers({ deadline: 150000, screenshot: wanted.screenshot }, async (open) => {
    const viewers = [];
    for (let n = 0; n < wanted.viewers; n++) {
      const page = await open('chromium', 'about:blank');
      const viewer = { page, posts: 0 };
      page.on('request', (request) => { viewer.posts += request.method() === 'POST' && request.url().includes('/whep/') ? 1 : 0; });
      viewers.push(viewer);
    }
    const [{ page: first }] = viewers;
    await first.goto(wanted.base);
    await until(first, 'the publisher', async (stream) => {
      const info = await fetch(`/api/streams/${stream}`).then((r) => (r.ok ? r.json() : null));
      return info?.live && info.video?.layers.every((layer) => layer.active);
    }, wanted.stream);
    for (const viewer of viewers) {
      const { page } = viewer;
      await page.goto(`${wanted.base}/${wanted.stream}`);
      await picture(page);
      await page.click('#unmute');
      await page.evaluate(watch);
      viewer.resource = await page.evaluate(() => window.player.session.resource);
    }
    await pause(1500);
    const killed = Date.now();
    publisher.kill('SIGKILL');
    await pause(wanted.away * 1000);
    for (const viewer of viewers) {
      viewer.energy = await viewer.page.evaluate(async () => (await window.player.stats()).audioEnergy);
      viewer.killedAt = await viewer.page.evaluate((at) => at - performance.timeOrigin, killed);
    }
    publisher = publish();
    const told = [];
    for (const viewer of viewers) {
      const { page } = viewer;
      const since = await until(page, 'the new publisher', began, [wanted.stream, viewer.killedAt]);
      await until(page, 'new pictures', goesOn, since);
      const { shown, received } = await page.evaluate(() => ({ shown: window.shown, received: window.received }));
      const firstAt = shown.find((at) => at > since);
      const stats = await page.evaluate(() => window.player.stats());
      const now = await page.evaluate(() => ({
        state: document.getElementById('state').textContent,
        resource: window.player.session?.resource,
      }));
      told.push({
        afterMs: firstAt - since,
        receivedMs: received[shown.indexOf(firstAt)] - since,
        gapMs: firstAt - shown.findLast((at) => at < since),
        frames: shown.filter((at) => at > since).length,
        audioEnergy: stats.audioEnergy - viewer.energy,
        state: now.state,
        sameSession: now.resource === viewer.resource,
        posts: viewer.posts,
      });
    }
    return { awayMs: wanted.away * 1000, viewers: told };
  });
  console.log(JSON.stringify(result));
} finally {
  publisher.kill('SIGKILL');
}
