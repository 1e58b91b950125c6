// What the stacks of this folder have in common: WHIP and WHEP over HTTP, and plain RTP on loopback, from where they get what they
// publish and to where they give what they play.
//
// node STACK.mjs publish|play URL VIDEO-PORT AUDIO-PORT
// It runs until it is killed, or until its stdin ends.

import { createSocket } from 'node:dgram';

const [what, url, video, audio] = process.argv.slice(2);

export const publishes = what === 'publish';
/** The port of plain RTP of each medium. */
export const ports = { video: Number(video), audio: Number(audio) };

/** Sends an offer and returns the answer. */
export async function negotiate(offer) {
  const response = await fetch(url, { method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: offer });
  const answer = await response.text();
  if (response.status !== 201) throw new Error(`${response.status} ${answer}\n${offer}`);
  if (process.env.SHOW_SDP) console.error(`${offer}\n${answer}`);
  return answer;
}

/** Calls with each packet that comes to a port. */
export function receive(port, take) {
  const socket = createSocket('udp4');
  socket.on('message', take);
  socket.bind(port, '127.0.0.1');
}

/** Sends packets to a port. */
export function sender(port) {
  const socket = createSocket('udp4');
  return (packet) => socket.send(packet, port, '127.0.0.1');
}

/** A packet under another payload type and SSRC. */
export function relabelled(packet, pt, ssrc) {
  packet[1] = (packet[1] & 0x80) | pt;
  packet.writeUInt32BE(ssrc, 8);
  return packet;
}

/** RTCP that came on the RTP's port (RFC 5761, section 4). */
export const isRtcp = (packet) => packet[1] >= 192 && packet[1] <= 223;

process.stdin.resume();
process.stdin.on('end', () => process.exit());
