// Looks at the page for who runs the server, records a stream, and ends a session; prints what was seen as one line of JSON.
//
// node admin.mjs --base http://127.0.0.1:8080 --stream cam1 [--width 390 --height 844] [--screenshot FILE]

import { options, pause, until, withBrowsers } from './browser.mjs';

const wanted = options({ base: '', stream: 'test', screenshot: '', width: 1280, height: 800 });
const setting = {
  deadline: 150000,
  screenshot: wanted.screenshot,
  size: { width: wanted.width, height: wanted.height },
};

const seen = await withBrowsers(setting, async (open) => {
  const page = await open('chromium', `${wanted.base}/admin`);
  const press = (label) => page.evaluate((text) => document.querySelector(`button[aria-label="${text}"]`).click(), label);
  const recording = (text) => until(page, text, ([stream, word]) => {
    const button = document.querySelector(`button[aria-label="Record ${stream}"]`);
    return button?.textContent === word;
  }, [wanted.stream, text]);
  await recording('Record');
  await until(page, 'lines', () => [...document.querySelectorAll('.plot polyline')]
    .filter((line) => line.getAttribute('points').split(' ').length > 3).length > 3);
  await press(`Record ${wanted.stream}`);
  await recording('Stop recording');
  await pause(3000);
  if (wanted.screenshot) await page.screenshot({ path: wanted.screenshot, fullPage: true });
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  const plots = await page.evaluate(() => [...document.querySelectorAll('.plot')].map((plot) => ({
    title: plot.querySelector('figcaption span').textContent,
    now: plot.querySelector('output').textContent,
    lines: plot.querySelectorAll('polyline').length,
  })));
  const small = await page.evaluate(() => [...document.querySelectorAll('button')]
    .filter((one) => one.offsetParent && one.getBoundingClientRect().height < 40).length);
  await press(`Record ${wanted.stream}`);
  await recording('Record');
  const sessions = () => page.evaluate(() => document.querySelectorAll('#sessions tbody tr').length);
  const before = await sessions();
  await page.evaluate(() => document.querySelector('#sessions tbody button').click());
  await until(page, 'one session less', (count) => document.querySelectorAll('#sessions tbody tr').length < count, before);
  // Its publisher is a pipeline, which can't be ended: what the server says of that stays to be read.
  await press(`End the publisher of ${wanted.stream}`);
  await until(page, 'the refusal', () => document.getElementById('state').textContent.includes('pipeline of this process'));
  await pause(3000);
  const refused = await page.evaluate(() => document.getElementById('state').textContent);
  // A push to nowhere: shown with its state and without its key, and ended.
  const key = 'a-key-to-be-kept';
  await page.evaluate(([stream, url]) => {
    document.getElementById('push-stream').value = stream;
    document.getElementById('push-url').value = url;
    document.querySelector('#push button').click();
  }, [wanted.stream, `rtmp://127.0.0.1:9/live/${key}`]);
  await until(page, 'the push', () => document.querySelectorAll('#pushes tbody tr').length === 1);
  const push = await page.evaluate(() => document.querySelector('#pushes tbody tr').textContent);
  const told = await page.evaluate((text) => document.documentElement.outerHTML.includes(text)
    || document.getElementById('push-url').value !== '', key);
  await page.evaluate(() => document.querySelector('#pushes tbody button').click());
  await until(page, 'no push', () => document.querySelectorAll('#pushes tbody tr').length === 0);
  const state = await page.evaluate(() => document.getElementById('state').textContent);
  return { plots, overflow, small, push, told, before, after: await sessions(), state, refused };
});
console.log(JSON.stringify(seen));
