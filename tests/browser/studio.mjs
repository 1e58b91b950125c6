// Uses the studio as a person would, with a fake camera and microphone, watches it in another page, and prints what was
// seen as one line of JSON.
//
// node studio.mjs --base http://127.0.0.1:8080 --stream show [--screenshot FILE]

import { until, options, pause, picture, withBrowsers } from './browser.mjs';

const wanted = options({ base: '', stream: 'show', screenshot: '' });
const setting = { deadline: 120000, screenshot: wanted.screenshot };
const shot = (name) => ({ path: wanted.screenshot.replace(/(\.png)?$/, `-${name}.png`) });
/** A red square, as a logo. */
const LOGO = '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="100"><path fill="#f00" d="M0 0h100v100H0z"/></svg>';

/** In a page: the mean colour of a part (of 0 to 1) of a video or canvas. */
function colour([id, x, y, width, height]) {
  const source = document.getElementById(id);
  const [w, h] = [source.videoWidth ?? source.width, source.videoHeight ?? source.height];
  const context = document.createElement('canvas').getContext('2d');
  context.drawImage(source, x * w, y * h, width * w, height * h, 0, 0, 32, 32);
  const { data } = context.getImageData(0, 0, 32, 32);
  const sum = [0, 0, 0];
  data.forEach((value, n) => { if (n % 4 < 3) sum[n % 4] += value; });
  return sum.map((value) => Math.round(value / (32 * 32)));
}

/** In a page: how wide it is, and how many groups of fields hold something that is wider than they are. */
function widths() {
  const broken = [...document.querySelectorAll('fieldset')].filter((one) => one.scrollWidth > one.clientWidth);
  return [document.documentElement.scrollWidth, broken.length];
}

const ALL = [0, 0, 1, 1];
/** The lower third between its bar and its text. */
const LEFT_BELOW = [0.038, 0.8, 0.012, 0.12];
const LOGO_AT = [0.9, 0.06, 0.05, 0.1];
const distance = (a, b) => Math.max(...a.map((value, n) => Math.abs(value - b[n])));

const result = await withBrowsers(setting, async (open) => {
  const studio = await open('chromium', `${wanted.base}/`);
  // What somebody else left in the browser's memory must not matter.
  await studio.evaluate(() => localStorage.setItem('gst-sfu.studio', '{"scene": 7, "bitrate": "much", "first": null, "image": "x"'));
  await studio.goto(`${wanted.base}/studio/${wanted.stream}`);
  await until(studio, 'the camera', () => window.studio.cam.open && window.studio.mic.open);
  await studio.click('#go');
  await until(studio, 'the studio to be live', () => document.getElementById('state').textContent === 'Live');
  const viewer = await open('chromium', `${wanted.base}/${wanted.stream}`);
  await picture(viewer);
  await viewer.click('#unmute');
  const seen = (part) => viewer.evaluate(colour, ['video', ...part]);
  /** Waits until a part of the viewer's picture has changed from what it was. */
  const changed = async (what, part, before) => {
    const end = Date.now() + 10000;
    for (;;) {
      const now = await seen(part);
      if (distance(now, before) > 40) {
        // The crossfade's end, and what is on its way.
        await pause(600);
        return seen(part);
      }
      if (Date.now() > end) throw new Error(`${what} does not change the viewer's picture: ${before} and ${now}`);
      await pause(100);
    }
  };
  const energy = async () => (await viewer.evaluate(() => window.player.stats())).audioEnergy;
  /** How much sound comes in so many ms. */
  const heard = async (ms) => {
    const before = await energy();
    await pause(ms);
    return (await energy()) - before;
  };
  await pause(500);
  const camera = await seen(ALL);
  const sound = await heard(2500);

  await studio.bringToFront();
  await studio.keyboard.press('5');
  const card = await changed('the scene', ALL, camera);
  const before = await seen(LEFT_BELOW);
  await studio.fill('#first', 'Ada Lovelace');
  await studio.fill('#second', 'Analyst and 1 poet, Glm');
  await studio.keyboard.press('Enter');
  const typed = await studio.evaluate(() => ({ ...window.studio.settings }));
  await studio.keyboard.press('l');
  const third = await changed('the lower third', LEFT_BELOW, before);
  const noLogo = await seen(LOGO_AT);
  await studio.setInputFiles('#image', { name: 'logo.svg', mimeType: 'image/svg+xml', buffer: Buffer.from(LOGO) });
  const logo = await changed('the logo', LOGO_AT, noLogo);

  // The screen, where this browser can share one; else the sentence that says what to do.
  await studio.keyboard.press('s');
  const screen = await until(studio, 'the screen', () => {
    const { stream, problem } = window.studio.screen;
    return stream ? 'shared' : problem;
  });
  await studio.keyboard.press('3');
  await changed('picture in picture', ALL, card);

  // The screen's own sound is not the microphone's.
  await studio.fill('#screen-gain', '0');
  await studio.focus('#go');
  await studio.keyboard.press('m');
  await pause(1000);
  const muted = await heard(2500);
  await studio.keyboard.press('m');

  // Ended by somebody at the server: it comes back by itself, with its scene.
  const resource = await studio.evaluate(() => window.studio.live.sender.session.resource);
  const begun = await studio.evaluate(async (url) => {
    await fetch(url, { method: 'DELETE' });
    return performance.now();
  }, resource);
  const backAfterMs = await until(studio, 'the studio to be live again', ([url, since]) => {
    const { live } = window.studio;
    const now = live.sender?.session.resource;
    return live.state === 'live' && now && now !== url ? performance.now() - since : 0;
  }, [resource, begun]);
  const frames = await viewer.evaluate(() => window.player.stats().then((stats) => stats.framesDecoded));
  await until(viewer, 'pictures after the new session', (count) => window.player.stats()
    .then((stats) => stats.framesDecoded > count + 20), frames);
  const again = await heard(2500);
  const scene = await studio.evaluate(() => window.studio.mixer.scene);

  // Somebody else cannot take the place without saying so.
  const other = await open('chromium', `${wanted.base}/studio/${wanted.stream}`);
  await until(other, 'the camera', () => window.studio.cam.open);
  await other.click('#go');
  const refused = await until(other, 'the refusal', () => window.studio.live.taken && document.getElementById('state').textContent);
  const stillOurs = await studio.evaluate(() => window.studio.live.state);
  await other.close();

  await until(studio, 'figures', () => document.querySelectorAll('#layers tr').length === 4);
  const stats = await studio.evaluate(() => window.studio.live.sender.stats());
  const wide = await studio.evaluate(widths);
  if (wanted.screenshot) await studio.screenshot(shot('desktop'));
  await studio.setViewportSize({ width: 390, height: 844 });
  await pause(300);
  const narrow = await studio.evaluate(widths);
  if (wanted.screenshot) await studio.screenshot({ ...shot('phone'), fullPage: true });
  await viewer.goto(`${wanted.base}/`);
  await until(viewer, 'the list', () => document.querySelectorAll('.card .links a').length >= 3);
  if (wanted.screenshot) await viewer.screenshot(shot('list'));
  const links = await viewer.evaluate(() => [...document.querySelectorAll('.card .links a:not([hidden])')].map((a) => a.getAttribute('href')));
  await studio.click('#go');
  const ended = await until(studio, 'the end', () => document.getElementById('state').textContent === 'Not live');
  return {
    sound, muted, again, camera, card, third, logo, screen, typed: typed.scene, refused, stillOurs,
    backAfterMs, scene, stats, wide, narrow, links, ended,
  };
});
console.log(JSON.stringify(result));
