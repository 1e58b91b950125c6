// A guest comes to the studio by the room's page, is put on air and taken away again. Prints what both saw as one line of JSON.
//
// node guests.mjs --base http://127.0.0.1:8080 [--screenshot FILE]

import { options, pause, until, withBrowsers } from './browser.mjs';

const wanted = options({ base: '', screenshot: '' });
const setting = { deadline: 110000, screenshot: wanted.screenshot };

/** In the studio: between two pictures beside each other there is nothing. */
const middle = () => {
  const canvas = document.getElementById('program');
  return [...canvas.getContext('2d').getImageData(640, 300, 1, 1).data].slice(0, 3);
};
/** In the guest's page: the loudest of a while of what it hears. */
const heard = async () => {
  const audio = document.querySelector('#sounds audio');
  if (!audio) return null;
  const context = new AudioContext();
  await context.resume();
  const [source, meter] = [context.createMediaStreamSource(audio.srcObject), context.createAnalyser()];
  source.connect(meter);
  const samples = new Float32Array(meter.fftSize);
  let peak = 0;
  for (const end = performance.now() + 2500; performance.now() < end;) {
    await new Promise((resolve) => { setTimeout(resolve, 20); });
    meter.getFloatTimeDomainData(samples);
    for (const sample of samples) peak = Math.max(peak, Math.abs(sample));
  }
  context.close();
  return peak;
};

const seen = await withBrowsers(setting, async (open) => {
  const look = (page, name) => wanted.screenshot && page.screenshot({ path: wanted.screenshot.replace(/(\.png)?$/, `-${name}.png`), fullPage: true });
  const results = {};
  const studio = await open('chromium', `${wanted.base}/studio/show`);
  await until(studio, 'the camera', () => window.studio.cam.open && window.studio.mic.open);
  await studio.click('#guests-open');
  await until(studio, 'the room', () => document.getElementById('guests-open').textContent === 'Close the room');
  const guest = await open('chromium', `${wanted.base}/room/show`);
  await until(guest, 'the lobby', () => window.room?.cam.open && window.room.mic.open);
  await guest.evaluate(() => { document.getElementById('who').value = 'Gina'; });
  await guest.click('#enter');
  await until(studio, 'the guest', () => document.querySelector('#guests li video')?.videoWidth > 2);
  results.guest = await studio.evaluate(() => document.querySelector('#guests li').textContent);
  results.tallyBefore = await guest.evaluate(() => !document.getElementById('tally').hidden);

  await studio.click('#scene-guests');
  await pause(600);
  results.alone = await studio.evaluate(middle);
  await studio.click('#guests li button');
  await until(guest, 'the tally light', () => !document.getElementById('tally').hidden);
  await until(studio, 'both in the programme', () => window.studio.mixer.onAir.length === 1);
  await pause(1500);
  results.together = await studio.evaluate(middle);
  await look(studio, 'studio');
  await look(guest, 'guest');

  // What the guest hears is the studio: its microphone, unless that is muted and it is not spoken to.
  await until(guest, 'sound of the studio', () => document.querySelector('#sounds audio'));
  results.heard = await guest.evaluate(heard);
  await studio.click('#mute');
  await pause(800);
  results.muted = await guest.evaluate(heard);
  await studio.click('#talkback');
  await pause(800);
  results.spokenTo = await guest.evaluate(heard);

  await studio.click('#guests li button');
  await until(guest, 'the tally light’s end', () => document.getElementById('tally').hidden);
  await studio.click('#guests li button');
  await until(guest, 'the tally light again', () => !document.getElementById('tally').hidden);
  // Connections are lost, of the studio and of the guest: who is on air is so again.
  const cut = () => {
    const { send } = WebSocket.prototype;
    WebSocket.prototype.send = function lost() {
      WebSocket.prototype.send = send;
      this.close();
    };
    window.states = [];
    const { client } = window.studio?.guests ?? window.room;
    client.addEventListener('state', () => window.states.push(client.state));
  };
  results.again = [];
  for (const page of [studio, guest]) {
    await page.evaluate(cut);
    await until(page, 'the return', () => window.states.includes('joined'));
    await until(studio, 'the guest in the programme', () => window.studio.mixer.onAir.length === 1);
    await until(studio, 'its picture', () => document.querySelector('#guests li video')?.videoWidth > 2);
    await until(guest, 'the tally light after that', () => !document.getElementById('tally').hidden);
    await pause(1500);
    results.again.push(await studio.evaluate(middle));
  }
  await guest.click('#leave');
  await until(studio, 'nobody', () => !document.querySelector('#guests li') && window.studio.mixer.onAir.length === 0);
  results.state = await studio.evaluate(() => document.getElementById('guests-state').textContent);
  results.wide = await studio.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  await studio.setViewportSize({ width: 390, height: 844 });
  results.narrow = await studio.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  await studio.click('#guests-open');
  await until(studio, 'the room’s end', () => document.getElementById('guests-open').textContent === 'Invite guests');
  return results;
});
console.log(JSON.stringify(seen));
