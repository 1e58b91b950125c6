// Plays a stream through a bad link that collapses and recovers, and prints how the picture followed.
//
// node follow.mjs --url http://127.0.0.1:8080/demo --udp 8189,8190 --load …/sfu-load [--screenshot FILE]
// `udp` are the server's media ports: the page is sent through the load tool's proxy instead.

import { spawn } from 'node:child_process';
import { once } from 'node:events';

import { options, pause, withBrowsers } from './browser.mjs';

const wanted = options({ url: '', udp: '', load: '', good: '5M', bad: '600k', top: 360, low: 90, screenshot: '' });
const LINK = ['--delay', '15ms', '--queue', '400ms'];

async function startProxy(server) {
  const to = `127.0.0.1:${server}`;
  const args = ['proxy', '--listen', '127.0.0.1:0', '--to', to, '--rate', wanted.good, ...LINK];
  const proxy = spawn(wanted.load, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const [line] = await once(proxy.stdout, 'data');
  const port = Number(String(line).match(/listening on .*:(\d+)/)?.[1]);
  if (!port) throw new Error(`the proxy said: ${line}`);
  return { proxy, port, set: (rate) => proxy.stdin.write(`--rate ${rate} ${LINK.join(' ')}\n`) };
}

/** How long it takes until the page sees `done`, in ms, or null. */
async function until(page, done, limit) {
  const begin = Date.now();
  while (Date.now() - begin < limit) {
    const seen = await page.evaluate(async () => ({ ...(await window.player.stats()), server: window.player.server }));
    if (done(seen)) return Date.now() - begin;
    await pause(50);
  }
  return null;
}

const proxies = new Map();
for (const server of wanted.udp.split(',')) proxies.set(server, await startProxy(server));
const set = (rate) => proxies.forEach((proxy) => proxy.set(rate));
try {
  const result = await withBrowsers({ deadline: 120000, screenshot: wanted.screenshot }, async (open) => {
    const page = await open('chromium', 'about:blank');
    // The page learns the proxy's port instead of the server's.
    await page.route('**/whep/**', async (route) => {
      const response = await route.fetch();
      const body = (await response.text()).replaceAll(/ (\d+) typ host/g, (_, port) => ` ${proxies.get(port).port} typ host`);
      await route.fulfill({ response, body });
    });
    await page.goto(wanted.url);
    const top = (s) => s.height === wanted.top;
    const low = (s) => s.height === wanted.low;
    const toTop = await until(page, top, 30000);
    await pause(5000);
    const before = await page.evaluate(() => window.player.stats());
    set(wanted.bad);
    const begin = Date.now();
    const chosen = await until(page, (s) => s.server?.layer.target === s.server?.layer.current && s.server?.layer.why === 'bandwidth', 10000);
    const lowAfter = await until(page, low, 15000);
    const lowest = lowAfter === null ? null : Date.now() - begin;
    await pause(8000);
    const atLow = await page.evaluate(async () => ({ ...(await window.player.stats()), why: document.getElementById('why').textContent }));
    if (wanted.screenshot) await page.screenshot({ path: wanted.screenshot });
    set(wanted.good);
    const back = await until(page, top, 30000);
    await pause(3000);
    const after = await page.evaluate(() => window.player.stats());
    return { toTop, before, chosen, lowest, atLow, back, after };
  });
  console.log(JSON.stringify(result));
} finally {
  proxies.forEach(({ proxy }) => proxy.kill());
}
