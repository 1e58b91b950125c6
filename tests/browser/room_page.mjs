// The room's own page: Ann and Ben meet by it, a third one looks on. Prints what they saw as one line of JSON.
//
// node room_page.mjs --base http://127.0.0.1:8080 --invitation TOKEN --play TOKEN --keys KEY:SECRET [--browsers chromium:chromium] [--screenshot FILE]

import { RoomServiceClient } from 'livekit-server-sdk';
import { options, pause, until, withBrowsers } from './browser.mjs';

const wanted = options({ base: '', invitation: '', play: '', keys: '', browsers: 'chromium:chromium', screenshot: '' });
const setting = { deadline: 170000, screenshot: wanted.screenshot };

/** In the page: pictures that play in the tiles of others. */
const pictures = () => [...document.querySelectorAll('.tile:not(.mine) video')].filter((one) => one.videoWidth > 2 && one.currentTime > 0.3).length;
const sounding = () => [...document.querySelectorAll('#sounds audio')].filter((one) => one.currentTime > 0.3).length;
const captions = () => [...document.querySelectorAll('.tile')].map((one) => one.textContent);
const overflow = () => document.documentElement.scrollWidth - window.innerWidth;

const enter = async (page, name) => {
  await until(page, 'the lobby', () => window.room?.cam.open && window.room.mic.open);
  await page.evaluate((who) => { document.getElementById('who').value = who; }, name);
  await page.click('#enter');
  await until(page, `${name} to be in`, () => window.room.client !== null);
};

const seen = await withBrowsers(setting, async (open) => {
  const [first, second] = wanted.browsers.split(':');
  const look = (page, name) => wanted.screenshot && page.screenshot({ path: wanted.screenshot.replace(/(\.png)?$/, `-${name}.png`) });
  const results = {};
  const ann = await open(first, `${wanted.base}/room/meeting?token=${wanted.invitation}`);
  await until(ann, 'the preview', () => window.room?.cam.open && document.getElementById('preview').videoWidth > 2);
  await look(ann, 'lobby');
  // Who may only look on opens no room.
  const asks = async (token) => {
    const response = await fetch(`/rtc/guest/meeting?token=${token}`, {
      method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{"name": "Guest"}',
    });
    return [response.status, await response.text()];
  };
  results.early = await ann.evaluate(asks, wanted.play);
  await enter(ann, 'Ann <b>');
  const ben = await open(second, `${wanted.base}/room/meeting?token=${wanted.invitation}`);
  await enter(ben, 'Ben');
  for (const [name, page] of [['ann', ann], ['ben', ben]]) {
    await until(page, 'the other one’s picture', pictures);
    await until(page, 'the other one’s sound', sounding);
    results[name] = { captions: await page.evaluate(captions), count: await page.evaluate(() => document.getElementById('count').textContent) };
  }

  // Words are no HTML, and go both ways.
  const words = 'Hello <i>all</i> ✓';
  await ann.click('#open-chat');
  await ann.evaluate((text) => { document.getElementById('words').value = text; }, words);
  await ann.click('#say button');
  await until(ben, 'what Ann wrote', (text) => document.getElementById('said').textContent.includes(text), words);
  results.unread = await ben.evaluate(() => document.getElementById('open-chat').textContent.trim());
  await ben.click('#open-chat');
  await ben.evaluate(() => { document.getElementById('words').value = 'And you'; });
  await ben.click('#say button');
  await until(ann, 'what Ben wrote', () => document.getElementById('said').textContent.includes('And you'));

  await ben.click('#hand');
  await until(ann, 'the hand', () => document.querySelector('.tile:not(.mine) .hand:not([hidden])'));
  await ben.click('#mute');
  await until(ann, 'that Ben is muted', () => document.querySelector('.tile:not(.mine) .note')?.textContent === 'muted');
  await look(ann, 'room');
  await ben.click('#mute');
  await until(ann, 'that he is not', () => document.querySelector('.tile:not(.mine) .note').hidden);
  await ben.click('#video');
  await until(ann, 'his face in place of his picture', () => !document.querySelector('.tile:not(.mine) .face').hidden);
  await ben.click('#video');
  await until(ann, 'his picture again', () => document.querySelector('.tile:not(.mine) .face').hidden);
  await until(ann, 'his picture playing again', pictures);

  // A screen is a canvas here: a window to choose it in is for people.
  const share = () => {
    navigator.mediaDevices.getDisplayMedia = async () => {
      const canvas = Object.assign(document.createElement('canvas'), { width: 1280, height: 720 });
      const context = canvas.getContext('2d');
      setInterval(() => {
        context.fillStyle = '#284';
        context.fillRect(0, 0, 1280, 720);
        context.fillStyle = '#fff';
        context.font = '120px sans-serif';
        context.fillText(String(Date.now()), 100, 400);
      }, 100);
      return canvas.captureStream(10);
    };
  };
  await ben.evaluate(share);
  for (let turn = 0; turn < 2; turn += 1) {
    await ben.click('#screen');
    await until(ann, 'the screen', () => [...document.querySelectorAll('.tile.screen video')].some((one) => one.videoWidth > 2 && one.currentTime > 0.3));
    if (turn === 0) {
      await ann.click('#layout');
      await pause(300);
      await look(ann, 'speaker');
      results.large = await ann.evaluate(() => document.querySelector('.tile.big').className);
      if (ann.setViewportSize) {
        const before = ann.viewportSize();
        await ann.setViewportSize({ width: 844, height: 390 });
        await pause(300);
        results.sideways = await ann.evaluate(() => ['.tile.screen', '.controls'].map((part) => document.querySelector(part).clientHeight));
        await look(ann, 'sideways');
        await ann.setViewportSize(before);
      }
    }
    await ben.click('#screen');
    await until(ann, 'the screen’s end', () => !document.querySelector('.tile.screen'));
  }

  // A moderator takes away what Ben may send, and gives it back.
  const moderator = new RoomServiceClient(wanted.base, ...wanted.keys.split(':'));
  const people = await moderator.listParticipants('meeting');
  const { identity } = people.find(({ name }) => name === 'Ben');
  const permit = (canPublish) => moderator.updateParticipant('meeting', identity, {
    permission: { canSubscribe: true, canPublish, canPublishData: true, canUpdateMetadata: true },
  });
  const state = () => ({
    state: document.getElementById('state').textContent,
    disabled: ['mute', 'video', 'screen', 'hand', 'words'].filter((id) => document.getElementById(id).disabled),
  });
  await permit(false);
  await until(ben, 'buttons that are off', () => document.getElementById('video').disabled);
  await until(ann, 'his face in place of his picture', () => !document.querySelector('.tile:not(.mine) .face').hidden);
  // Longer than who goes on offering what it may not send is let be.
  await pause(11000);
  results.taken = await ben.evaluate(state);
  await permit(true);
  await until(ann, 'his picture after that', pictures);
  await until(ann, 'his sound after that', sounding);
  results.given = await ben.evaluate(state);

  // Who may only play sees both, and shows nothing.
  const guest = await open(first, `${wanted.base}/room/meeting?token=${wanted.play}`);
  await enter(guest, 'Guest');
  await until(guest, 'both pictures', () => [...document.querySelectorAll('.tile:not(.mine) video')].filter((one) => one.videoWidth > 2).length === 2);
  results.guest = await guest.evaluate(state);
  results.wide = await ann.evaluate(overflow);
  if (ann.setViewportSize) {
    await ann.setViewportSize({ width: 390, height: 844 });
    await pause(300);
    results.narrow = await ann.evaluate(overflow);
    await look(ann, 'phone');
    await ann.click('#open-chat');
    await pause(300);
    await look(ann, 'phone-tiles');
  }
  await ann.evaluate(() => document.getElementById('layout').click());
  await guest.click('#leave');
  await until(ann, 'one less', () => document.getElementById('count').textContent === '2 people');

  // The connection is lost: both are there again, with all that they had.
  await ben.evaluate(() => {
    const { send } = WebSocket.prototype;
    WebSocket.prototype.send = function cut() {
      WebSocket.prototype.send = send;
      this.close();
    };
    window.states = [];
    window.room.client.addEventListener('state', () => {
      window.states.push(window.room.client?.state);
      if (window.room.client?.state !== 'away') return;
      document.getElementById('words').value = 'Into the void';
      document.getElementById('say').requestSubmit();
    });
  });
  await until(ben, 'Ben to come back', () => window.states.includes('joined'));
  for (const page of [ann, ben]) await until(page, 'both pictures again', pictures);
  results.unsent = await ben.evaluate(() => document.querySelector('#said .unsent')?.textContent);
  results.states = await ben.evaluate(() => window.states);
  await ben.click('#leave');
  results.left = await ben.evaluate(() => document.getElementById('state').textContent);
  await until(ann, 'to be alone', () => document.getElementById('count').textContent === 'Only you are here');

  // Who shows nothing but a screen stays when that ends, and shows it again.
  await ben.evaluate(async () => {
    await window.room.cam.choose('off');
    await window.room.mic.choose('off');
  });
  await ben.click('#enter');
  await until(ben, 'Ben to be in again', () => window.room.client !== null);
  await ben.evaluate(() => {
    window.states = [];
    window.room.client.addEventListener('state', () => window.states.push(window.room.client?.state));
  });
  for (let turn = 0; turn < 2; turn += 1) {
    await ben.click('#screen');
    await until(ann, 'only a screen', () => [...document.querySelectorAll('.tile.screen video')].some((one) => one.videoWidth > 2 && one.currentTime > 0.3));
    await ben.click('#screen');
    await until(ann, 'that screen’s end', () => !document.querySelector('.tile.screen'));
  }
  await pause(1000);
  results.screenAlone = await ben.evaluate(() => window.states);
  await ben.click('#leave');

  // As clients other than browsers publish: tracks without a source.
  await ben.evaluate(async () => {
    const { send } = WebSocket.prototype;
    WebSocket.prototype.send = function unnamed(data) {
      send.call(this, String(data).includes('addTrack') ? data.replace(/"source":"[A-Z_]+",/, '') : data);
    };
    await window.room.cam.choose('');
    await window.room.mic.choose('');
  });
  await ben.click('#enter');
  await until(ann, 'a picture of no source', pictures);
  await until(ann, 'sound of no source', sounding);
  results.unnamed = await ann.evaluate(() => [...document.querySelectorAll('.tile:not(.mine)')].map((one) => one.className));
  await ben.click('#leave');
  return results;
});
console.log(JSON.stringify(seen));
