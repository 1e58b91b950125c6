// Data channels of Chromium with the engine. Lines of JSON on stdin and stdout are the signalling: see crates/sfu-engine/tests/channels.
//
// node channels.mjs MESSAGES NEGOTIATIONS

import { createInterface } from 'node:readline';
import { launch } from './chromium.mjs';

const [messages, negotiations] = process.argv.slice(2).map(Number);
const browser = await launch({ width: 400, height: 300 });
const page = await browser.newPage();
page.on('console', (message) => console.error(message.text()));
page.on('pageerror', (error) => console.error(error));
await page.goto('about:blank');

const answers = [];
const waiting = [];
const say = (said) => console.log(JSON.stringify(said));
const heard = () => new Promise((resolve) => (answers.length ? resolve(answers.shift()) : waiting.push(resolve)));

await page.exposeFunction('ask', async (said) => {
  say(said);
  return heard();
});
await page.exposeFunction('tell', say);

// What we are offered: everything that comes goes back.
await page.evaluate(() => {
  window.subscriber = new RTCPeerConnection();
  subscriber.ondatachannel = ({ channel }) => {
    channel.binaryType = 'arraybuffer';
    channel.onmessage = ({ data }) => channel.send(data);
  };
  window.answer = async (offer) => {
    await subscriber.setRemoteDescription({ type: 'offer', sdp: offer });
    await subscriber.setLocalDescription();
    return subscriber.localDescription.sdp;
  };
});
const onOffer = async (offer) => say({ answer: await page.evaluate((sdp) => answer(sdp), offer) });
createInterface({ input: process.stdin }).on('line', (line) => {
  const said = JSON.parse(line);
  if (said.offer) onOffer(said.offer);
  else if (waiting.length) waiting.shift()(said);
  else answers.push(said);
});

const seen = await page.evaluate(
  async ([messages, negotiations]) => {
    const pc = new RTCPeerConnection();
    const kinds = {
      reliable: {},
      unordered: { ordered: false },
      lossy: { ordered: false, maxRetransmits: 0 },
      thrice: { maxRetransmits: 3 },
      timed: { ordered: false, maxPacketLifeTime: 300 },
      agreed: { negotiated: true, id: 100 },
    };
    const channels = Object.entries(kinds).map(([label, options]) => pc.createDataChannel(label, options));
    const negotiate = async () => {
      await pc.setLocalDescription();
      const { answer, error } = await ask({ offer: pc.localDescription.sdp });
      if (error) throw new Error(error);
      await pc.setRemoteDescription({ type: 'answer', sdp: answer });
    };
    const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    await negotiate();
    const got = {};
    for (const channel of channels) {
      channel.binaryType = 'arraybuffer';
      got[channel.label] = [];
      channel.onmessage = ({ data }) => {
        const number = typeof data === 'string' ? Number(data.split(' ')[0] || -1) : new DataView(data).getUint32(0);
        got[channel.label].push(number);
      };
      for (let n = 0; n < 300 && channel.readyState !== 'open'; n += 1) await sleep(100);
      if (channel.readyState !== 'open') throw new Error(`${channel.label} is ${channel.readyState}`);
    }
    const every = Math.max(1, Math.floor(messages / negotiations));
    let lines = 0;
    for (let n = 0; n < messages; n += 1) {
      // What comes back is as much, and the server keeps 2 MiB of it for us.
      for (let waits = 0; waits < 3000 && n - got.reliable.length > 300; waits += 1) await sleep(10);
      for (const channel of channels) {
        // Texts and octets, small and now and then large.
        const size = n % 100 === 99 ? 30_000 : 8 + (n % 400);
        if (n % 2) {
          channel.send(`${n} ${'x'.repeat(size)}`);
        } else {
          const data = new Uint8Array(size);
          new DataView(data.buffer).setUint32(0, n);
          channel.send(data);
        }
        for (let waits = 0; waits < 1000 && channel.bufferedAmount > 200_000; waits += 1) await sleep(20);
      }
      if (n % every === 0 && lines < negotiations) {
        lines += 1;
        const senders = pc.getTransceivers();
        if (lines % 3 === 0 && senders.length) senders[lines % senders.length].direction = lines % 2 ? 'inactive' : 'sendonly';
        else if (senders.length < 12) pc.addTransceiver(lines % 2 ? 'audio' : 'video', { direction: 'sendonly' });
        else senders[lines % senders.length].direction = 'sendonly';
        await negotiate();
      }
      if (n % 10 === 0) await sleep(10);
    }
    // Until nothing more comes.
    for (let before = -1; ; ) {
      await sleep(3000);
      const now = Object.values(got).reduce((sum, numbers) => sum + numbers.length, 0);
      if (now === before) break;
      before = now;
    }
    // A text and a message that are empty, and a channel that is closed.
    const empty = pc.createDataChannel('empty');
    const echoed = [];
    empty.onmessage = ({ data }) => echoed.push(typeof data === 'string' ? data : data.byteLength);
    empty.binaryType = 'arraybuffer';
    await new Promise((resolve) => (empty.onopen = resolve));
    empty.send('');
    empty.send(new Uint8Array(0));
    empty.send(new Uint8Array(262_144));
    for (let n = 0; n < 300 && echoed.length < 3; n += 1) await sleep(100);
    empty.close();
    await new Promise((resolve) => (empty.onclose = resolve));
    return { got, echoed, state: pc.connectionState, negotiations: lines };
  },
  [messages, negotiations],
);
say({ seen });
// Our own part may take longer.
await heard();
await browser.close();
process.exit();
