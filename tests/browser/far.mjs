// Watches from far away: publishes a picture with the time in it (see timecode.js), and plays it in the same page through
// the load tool's proxy, a long link that loses in bursts. Prints how old the pictures were, and where they froze.
//
// node far.mjs --url http://127.0.0.1:8080 --udp 8189 --load …/sfu-load --seconds 300
// `udp` is the server's media port; without one there is nothing in between. With `--tcp 40` media goes by TCP, both ways through a relay that takes so many ms.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';

import { options, pause, picture, until, withBrowsers } from './browser.mjs';
import { relay } from './relay.mjs';

const wanted = options({
  url: '', udp: '', load: '', tcp: -1, seconds: 300, settle: 10, link: '--delay 40ms --loss 1% --burst 4', freeze: 200, screenshot: '',
});

/** Runs in the page: draws the time code at 30 pictures a second, and publishes that by WHIP. */
async function publish(stream) {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [640, 360];
  const context = canvas.getContext('2d');
  let count = 0;
  let last = performance.now();
  window.idle = [];
  setInterval(() => {
    // Where nothing was drawn nothing can be shown.
    const begun = performance.now();
    if (begun - last > 80) window.idle.push({ at: Date.now() >>> 0, ms: Math.round(begun - last) });
    last = begun;
    // Something that moves, and makes the encoder work.
    for (let n = 0; n < 40; n++) {
      context.fillStyle = `hsl(${(count * 7 + n * 9) % 360} 70% 50%)`;
      context.fillRect(n * 16, 60 + ((count * 3 + n * 20) % 280), 16, 40);
    }
    count += 1;
    const now = Date.now() % 2 ** 32;
    for (let bit = 0; bit < 32; bit++) {
      const one = Math.floor(now / 2 ** (31 - bit)) % 2 === 1;
      for (const row of [0, 1]) {
        context.fillStyle = one === (row === 0) ? '#fff' : '#000';
        context.fillRect(bit * 20, row * 22.5, 20, 22.5);
      }
    }
  }, 1000 / 30);
  const peer = new RTCPeerConnection();
  peer.addTransceiver(canvas.captureStream(30).getVideoTracks()[0], {
    direction: 'sendonly', sendEncodings: [{ maxBitrate: 1500000 }],
  });
  await peer.setLocalDescription();
  if (peer.iceGatheringState !== 'complete') {
    await new Promise((resolve) => {
      peer.onicegatheringstatechange = () => peer.iceGatheringState === 'complete' && resolve();
    });
  }
  const headers = { 'Content-Type': 'application/sdp' };
  const answer = await fetch(`/whip/${stream}`, { method: 'POST', headers, body: peer.localDescription.sdp });
  if (!answer.ok) throw new Error(`publishing: ${answer.status} ${await answer.text()}`);
  await peer.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
  window.published = peer;
}

function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] : null;
}

/** A way to the server's media port that is long, of the transport that is wanted: its port, and how it ends. */
async function way() {
  if (wanted.udp === '') return { port: null, close: () => {} };
  if (wanted.tcp >= 0) return relay(Number(wanted.udp), wanted.tcp);
  const args = ['proxy', '--listen', '127.0.0.1:0', '--to', `127.0.0.1:${wanted.udp}`, ...wanted.link.split(' ')];
  const proxy = spawn(wanted.load, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const [line] = await once(proxy.stdout, 'data');
  const port = Number(String(line).match(/listening on .*:(\d+)/)?.[1]);
  if (!port) throw new Error(`the proxy said: ${line}`);
  return { port, close: () => proxy.kill() };
}

/** Runs in the page: how the publisher's media travels. */
async function protocol() {
  const all = [...(await window.published.getStats()).values()];
  const pair = all.find((one) => one.type === 'candidate-pair' && one.state === 'succeeded' && one.nominated);
  return all.find((one) => one.id === pair?.remoteCandidateId)?.protocol;
}

const { port, close } = await way();
try {
  const deadline = (wanted.seconds + wanted.settle + 60) * 1000;
  const seen = await withBrowsers({ deadline, screenshot: wanted.screenshot }, async (open) => {
    const page = await open('chromium', 'about:blank');
    // The page learns the way's port instead of the server's.
    await page.route(wanted.tcp >= 0 ? /\/wh[ei]p\// : '**/whep/**', async (route) => {
      const response = await route.fetch();
      const body = (await response.text()).replaceAll(/ (\d+) typ host/g, ` ${port ?? '$1'} typ host`);
      await route.fulfill({ response, body });
    });
    const begun = Date.now();
    await page.goto(`${wanted.url}/far`);
    await page.evaluate(publish, 'far');
    await until(page, 'the connection', () => window.published.connectionState === 'connected');
    const connectedMs = Date.now() - begun;
    await picture(page);
    const pictureMs = Date.now() - begun;
    await pause(wanted.settle * 1000);
    // Evaluated, not added as a script: the page's policy rightly forbids foreign scripts.
    await page.evaluate(readFileSync(new URL('./timecode.js', import.meta.url), 'utf8'));
    await page.evaluate(() => { window.seen = window.watchTimecode(document.getElementById('video')); });
    await pause(wanted.seconds * 1000);
    const stats = await page.evaluate(() => window.player.stats());
    const by = await page.evaluate(protocol);
    const idle = await page.evaluate(() => window.idle);
    // What the event stream said.
    const told = await page.evaluate(() => Object.keys(window.player.server ?? {}).length);
    return { ...(await page.evaluate(() => window.seen)), stats, by, told, connectedMs, pictureMs, idle };
  });
  const gaps = seen.gaps.map(({ ms }) => ms);
  console.log(JSON.stringify({
    seconds: wanted.seconds,
    link: wanted.udp === '' ? 'none' : wanted.tcp >= 0 ? `TCP, ${wanted.tcp} ms each way` : wanted.link,
    by: seen.by,
    told: seen.told,
    connectedMs: seen.connectedMs,
    pictureMs: seen.pictureMs,
    p50Ms: quantile(seen.latencies, 0.5),
    p95Ms: quantile(seen.latencies, 0.95),
    maxMs: quantile(seen.latencies, 1),
    frames: seen.frames,
    unreadable: seen.unreadable,
    longestGapMs: quantile(gaps, 1),
    freezes: gaps.filter((ms) => ms > wanted.freeze).length,
    longest: seen.gaps.toSorted((a, b) => b.ms - a.ms).slice(0, 8),
    sourceIdle: seen.idle,
    stats: seen.stats,
  }));
} finally {
  close();
}
