// Data channels of libdatachannel with the engine. Lines of JSON on stdin and stdout are the signalling: see
// crates/sfu-engine/tests/channels.
//
// node channels.mjs MESSAGES NEGOTIATIONS

import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import nodeDataChannel from 'node-datachannel';

const { PeerConnection, Audio, Video } = nodeDataChannel;
const [messages, negotiations] = process.argv.slice(2).map(Number);
const say = (said) => console.log(JSON.stringify(said));

const answers = [];
const waiting = [];
let onOffer = () => {};
createInterface({ input: process.stdin }).on('line', (line) => {
  const said = JSON.parse(line);
  if (said.offer) onOffer(said.offer);
  else if (waiting.length) waiting.shift()(said);
  else answers.push(said);
});
const heard = () => new Promise((resolve) => (answers.length ? resolve(answers.shift()) : waiting.push(resolve)));

// What we are offered: everything that comes goes back.
const subscriber = new PeerConnection('subscriber', { iceServers: [], disableAutoNegotiation: true });
const back = [];
subscriber.onDataChannel((channel) => {
  back.push(channel);
  channel.onMessage((data) => (typeof data === 'string' ? channel.sendMessage(data) : channel.sendMessageBinary(Buffer.from(data))));
});
onOffer = (offer) => {
  subscriber.setRemoteDescription(offer, 'offer');
  subscriber.setLocalDescription('answer');
  say({ answer: subscriber.localDescription().sdp });
};

const pc = new PeerConnection('publisher', { iceServers: [], disableAutoNegotiation: true });
// With media it brings SRTP along, which it can't later: tracks that come later need one that is there before.
const tracks = [pc.addTrack(new Audio('first', 'Inactive'))];
const kinds = {
  reliable: {},
  unordered: { unordered: true },
  lossy: { unordered: true, maxRetransmits: 0 },
  thrice: { maxRetransmits: 3 },
  timed: { unordered: true, maxPacketLifeTime: 300 },
  agreed: { negotiated: true, id: 100 },
};
const got = {};
const channels = Object.entries(kinds).map(([label, options]) => {
  const channel = pc.createDataChannel(label, options);
  got[label] = [];
  channel.onMessage((data) => {
    got[label].push(typeof data === 'string' ? Number(data.split(' ')[0] || -1) : Buffer.from(data).readUInt32BE(0));
  });
  return { label, channel };
});
const negotiate = async () => {
  pc.setLocalDescription('offer');
  say({ offer: pc.localDescription().sdp });
  const { answer, error } = await heard();
  if (error) throw new Error(error);
  pc.setRemoteDescription(answer, 'answer');
};
await negotiate();
for (let n = 0; n < 300 && !channels.every(({ channel }) => channel.isOpen()); n += 1) await sleep(100);
if (!channels.every(({ channel }) => channel.isOpen())) throw new Error('channels do not open');

const every = Math.max(1, Math.floor(messages / negotiations));
let lines = 0;
for (let n = 0; n < messages; n += 1) {
  // What comes back is as much, and the server keeps 2 MiB of it for us.
  for (let waits = 0; waits < 3000 && n - got.reliable.length > 300; waits += 1) await sleep(10);
  for (const { channel } of channels) {
    const size = n % 100 === 99 ? 30_000 : 8 + (n % 400);
    if (n % 2) {
      channel.sendMessage(`${n} ${'x'.repeat(size)}`);
    } else {
      const data = Buffer.alloc(size);
      data.writeUInt32BE(n, 0);
      channel.sendMessageBinary(data);
    }
    for (let waits = 0; waits < 1000 && channel.bufferedAmount() > 200_000; waits += 1) await sleep(20);
  }
  if (n % every === 0 && lines < negotiations) {
    lines += 1;
    if (tracks.length < 12 && lines % 3 === 0) {
      const media = new Video(`track-${lines}`, 'SendOnly');
      media.addH264Codec(96);
      media.addSSRC(1000 + lines, 'me', 'stream', `track-${lines}`);
      tracks.push(pc.addTrack(media));
    }
    await negotiate();
  }
  if (n % 10 === 0) await sleep(10);
}
for (let before = -1; ; ) {
  await sleep(3000);
  const now = Object.values(got).reduce((sum, numbers) => sum + numbers.length, 0);
  if (now === before) break;
  before = now;
}
const empty = pc.createDataChannel('empty');
const echoed = [];
empty.onMessage((data) => echoed.push(typeof data === 'string' ? data : data.byteLength));
for (let n = 0; n < 300 && !empty.isOpen(); n += 1) await sleep(100);
empty.sendMessage('');
empty.sendMessageBinary(Buffer.alloc(0));
empty.sendMessageBinary(Buffer.alloc(262_144));
for (let n = 0; n < 300 && echoed.length < 3; n += 1) await sleep(100);
empty.close();
say({ seen: { got, echoed, state: pc.state(), negotiations: lines } });
await heard();
// Until now somebody refers to them.
for (const { channel } of channels) channel.close();
for (const channel of [empty, ...back]) channel.close();
for (const connection of [pc, subscriber]) connection.close();
process.exit(tracks.length ? 0 : 1);
