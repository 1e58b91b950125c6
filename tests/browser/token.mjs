// Opens each page with a token in its address, as somebody does who was sent one, and does there what the page is for. Prints
// what was seen as one line of JSON: of each page its state and width, and of all that it asked for what was refused, and
// which requests told where they came from.
//
// node token.mjs --base http://127.0.0.1:8080 --token TOKEN [--width 390 --height 844] [--screenshot FILE]

import { options, picture, until, withBrowsers } from './browser.mjs';

const wanted = options({ base: '', token: '', screenshot: '', width: 1280, height: 800 });
const setting = {
  deadline: 150000,
  screenshot: wanted.screenshot,
  size: { width: wanted.width, height: wanted.height },
};
const live = (page, what) => until(page, what, () => document.getElementById('state').textContent === 'Live');

const seen = await withBrowsers(setting, async (open) => {
  const requests = [];
  const watched = async (path, token = wanted.token) => {
    const page = await open('chromium', 'about:blank');
    page.on('response', (response) => {
      const request = response.request();
      const told = request.allHeaders().then((headers) => ({
        url: request.url(), status: response.status(), referer: headers.referer ?? '',
      }));
      requests.push(told.catch(() => null));
    });
    await page.goto(`${wanted.base}${path}${token && `?token=${token}`}`);
    return page;
  };
  const results = {};
  const look = async (name, page) => {
    if (wanted.screenshot) await page.screenshot({ path: wanted.screenshot.replace(/(\.png)?$/, `-${name}.png`), fullPage: true });
    results[name] = await page.evaluate(() => ({
      state: document.getElementById('state')?.textContent,
      overflow: document.documentElement.scrollWidth - window.innerWidth,
      links: [...document.querySelectorAll('a[href]')].filter((one) => one.origin === location.origin).map((one) => one.href),
    }));
  };

  const publisher = await watched('/publish/mine');
  await publisher.click('#go');
  await live(publisher, 'the publisher to be live');
  await look('publish', publisher);

  const list = await watched('/');
  await until(list, 'the stream in the list', () => [...document.querySelectorAll('a')].some((one) => one.pathname === '/mine'));
  await look('list', list);
  // As somebody who follows the list's link.
  const link = await list.evaluate(() => [...document.querySelectorAll('a')].find((one) => one.pathname === '/mine').href);
  await list.goto(link);
  await picture(list);
  await look('followed', list);

  const player = await watched('/mine');
  await picture(player);
  await live(player, 'the player to be live');
  await look('play', player);

  const admin = await watched('/admin');
  await until(admin, 'the session in the table', () => document.querySelectorAll('#sessions tbody tr').length > 1);
  await look('admin', admin);

  const studio = await watched('/studio/show');
  await until(studio, 'the camera', () => window.studio.cam.open && window.studio.mic.open);
  await studio.click('#go');
  await live(studio, 'the studio to be live');
  await look('studio', studio);

  const room = await watched('/room/meeting');
  await until(room, 'the lobby', () => window.room?.cam.open && window.room.mic.open);
  await look('lobby', room);
  await room.evaluate(() => { document.getElementById('who').value = 'Ann'; });
  await room.click('#enter');
  await until(room, 'to be in', () => document.querySelector('.tile.mine video')?.videoWidth > 2);
  await look('room', room);

  const told = (await Promise.all(requests)).filter(Boolean);
  // Without it nothing of that works.
  const before = requests.length;
  const stranger = await watched('/mine', '');
  await until(stranger, 'a refusal', () => !['Live', 'Connecting', ''].includes(document.getElementById('state').textContent));
  await look('stranger', stranger);
  const strangers = (await Promise.all(requests.slice(before))).filter(Boolean);
  return {
    pages: results,
    asked: told.length,
    refused: told.filter(({ status }) => status === 401 || status === 403),
    referers: told.filter(({ referer }) => referer !== ''),
    strangerRefused: strangers.filter(({ status }) => status === 401).length,
    strangerSees: await stranger.evaluate(() => document.getElementById('video').videoWidth),
  };
});
console.log(JSON.stringify(seen));
