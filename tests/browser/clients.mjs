// Clients as they come from npm, in pages of another site: of WHIP and WHEP, and of GStreamer's own signalling. Each publishes, and what it
// publishes is played. Prints what was seen as one line of JSON.
//
// node clients.mjs --url http://127.0.0.1:8080

import { createServer } from 'node:http';

import { build } from 'esbuild';

import { options, until, withBrowsers } from './browser.mjs';

const wanted = options({ url: '', screenshot: '' });

const ENTRY = `
import { WHIPClient as EyevinnWhip } from '@eyevinn/whip-web-client';
import { WebRTCPlayer } from '@eyevinn/webrtc-player';
import { WHIPClient as BinbatWhip } from '@binbat/whip-whep/whip.js';
import { WHEPClient as BinbatWhep } from '@binbat/whip-whep/whep.js';
// Its own entry asks for React.
import { MediaMTXWebRTCReader } from './node_modules/mediamtx-webrtc-react/src/lib/MediaMTXWebRTCReader.ts';
import GstWebRTCAPI from 'gstwebrtc-api';
Object.assign(window, { EyevinnWhip, WebRTCPlayer, BinbatWhip, BinbatWhep, MediaMTXWebRTCReader, GstWebRTCAPI });
`;
const PAGE = '<!doctype html><title>clients</title><script src="/clients.js"></script><video id="video" muted autoplay playsinline></video>';

async function serve() {
  const define = { 'process.env.NODE_ENV': '"production"', global: 'window' };
  const stdin = { contents: ENTRY, resolveDir: import.meta.dirname };
  const bundle = await build({ stdin, bundle: true, write: false, format: 'iife', define, logLevel: 'error' });
  const script = bundle.outputFiles[0].text;
  const server = createServer((request, response) => {
    const isScript = request.url === '/clients.js';
    response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
    response.end(isScript ? script : PAGE);
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return server;
}

const publishers = {
  async eyevinn(endpoint) {
    const media = await navigator.mediaDevices.getUserMedia({ video: true, audio: true });
    const client = new window.EyevinnWhip({ endpoint, opts: {} });
    await client.ingest(media);
    window.stop = () => client.destroy();
  },
  async binbat(endpoint) {
    const media = await navigator.mediaDevices.getUserMedia({ video: true, audio: true });
    const connection = new RTCPeerConnection();
    for (const track of media.getTracks()) connection.addTransceiver(track, { direction: 'sendonly', streams: [media] });
    const client = new window.BinbatWhip();
    await client.publish(connection, endpoint);
    window.stop = () => client.stop();
  },
  /** A page's meta names the stream. */
  async gstreamer(endpoint) {
    const media = await navigator.mediaDevices.getUserMedia({ video: true, audio: true });
    const { host, pathname } = new URL(endpoint);
    const name = pathname.split('/').pop();
    const api = new window.GstWebRTCAPI({ signalingServerUrl: `ws://${host}/gst-webrtc`, meta: { name }, reconnectionTimeout: 0, webrtcConfig: {} });
    await new Promise((connected) => { api.registerConnectionListener({ connected, disconnected() {} }); });
    const producer = api.createProducerSession(media);
    producer.addEventListener('error', (event) => console.error(event.message, event.error));
    producer.start();
    window.stop = () => producer.close();
  },
};

const players = {
  async eyevinn(endpoint) {
    const video = document.getElementById('video');
    const player = new window.WebRTCPlayer({ video, type: 'whep' });
    await player.load(new URL(endpoint));
    window.stop = () => player.destroy();
  },
  async binbat(endpoint) {
    const video = document.getElementById('video');
    const connection = new RTCPeerConnection();
    connection.ontrack = ({ streams }) => { [video.srcObject] = streams; };
    for (const kind of ['audio', 'video']) connection.addTransceiver(kind, { direction: 'recvonly' });
    const client = new window.BinbatWhep();
    await client.view(connection, endpoint);
    window.stop = () => client.stop();
  },
  /** The script of MediaMTX's page: it closes its connection and says nothing. */
  async mediamtx(url) {
    const onTrack = ({ streams }) => { [document.getElementById('video').srcObject] = streams; };
    const reader = new window.MediaMTXWebRTCReader({ url, onTrack, onError: (error) => console.error(error) });
    window.stop = () => reader.close();
  },
  /** It lists who produces, chooses by the name, and is offered. */
  async gstreamer(endpoint) {
    const { host, pathname } = new URL(endpoint);
    const name = pathname.split('/').pop();
    const api = new window.GstWebRTCAPI({ signalingServerUrl: `ws://${host}/gst-webrtc`, reconnectionTimeout: 0, webrtcConfig: {} });
    const producer = await new Promise((found) => {
      const producerAdded = (one) => { if (one.meta.name === name) found(one); };
      api.registerPeerListener({ producerAdded, producerRemoved() {}, consumerAdded() {}, consumerRemoved() {} });
    });
    const session = api.createConsumerSession(producer.id);
    session.addEventListener('error', (event) => console.error(event.message, event.error));
    session.addEventListener('streamsChanged', () => { [document.getElementById('video').srcObject] = session.streams; });
    session.connect();
    window.stop = () => session.close();
  },
  /** As the player of Eyevinn has it for servers that take no offers. */
  async theirs(endpoint) {
    const video = document.getElementById('video');
    const connection = new RTCPeerConnection();
    connection.ontrack = ({ streams }) => { [video.srcObject] = streams; };
    const headers = { 'Content-Type': 'application/sdp' };
    const offered = await fetch(endpoint, { method: 'POST', headers, body: '' });
    if (offered.status !== 201) throw new Error(`${offered.status} ${await offered.text()}`);
    const session = new URL(offered.headers.get('Location'), endpoint);
    await connection.setRemoteDescription({ type: 'offer', sdp: await offered.text() });
    await connection.setLocalDescription(await connection.createAnswer());
    const answered = await fetch(session, { method: 'PATCH', headers, body: connection.localDescription.sdp });
    const again = await fetch(session, { method: 'PATCH', headers, body: connection.localDescription.sdp });
    if (answered.status !== 204 || again.status !== 415) throw new Error(`${answered.status} ${again.status}`);
    window.stop = () => fetch(session, { method: 'DELETE' });
  },
};

/** Who plays what each publishes: all of them the first. */
const pairs = { eyevinn: Object.keys(players), binbat: ['binbat'], gstreamer: ['gstreamer'] };

const server = await serve();
const base = `http://localhost:${server.address().port}/`;
const seen = await withBrowsers({ deadline: 120000, screenshot: wanted.screenshot }, async (open) => {
  const frames = {};
  for (const [publisher, playedBy] of Object.entries(pairs)) {
    const source = await open('chromium', base);
    await source.evaluate(publishers[publisher], `${wanted.url}/whip/${publisher}`);
    const stream = async () => (await fetch(`${wanted.url}/api/streams/${publisher}`)).json().catch(() => ({}));
    for (let n = 0; n < 200; n += 1) {
      const info = await stream();
      if (info.video?.layers?.some((layer) => layer.active)) break;
      await new Promise((resolve) => { setTimeout(resolve, 100); });
    }
    for (const player of playedBy) {
      const page = await open('chromium', base);
      await page.evaluate(players[player], `${wanted.url}/whep/${publisher}`);
      const count = () => document.getElementById('video').getVideoPlaybackQuality().totalVideoFrames;
      await until(page, `pictures of ${publisher} by ${player}`, () => {
        const video = document.getElementById('video');
        return video.getVideoPlaybackQuality().totalVideoFrames > 5;
      });
      frames[`${publisher} ${player}`] = await page.evaluate(count);
      await page.evaluate(() => window.stop());
      await page.close();
    }
    await source.evaluate(() => window.stop());
    await source.close();
  }
  return frames;
});
server.close();
console.log(JSON.stringify(seen));
