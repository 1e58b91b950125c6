// Plays a stream by the browser's own HLS (Safari, Chromium 142 and newer).

import { withToken } from './page.js';

const stream = location.pathname.replace(/^\/hls\//, '').replace(/\/$/, '');
const address = withToken(`/hls/${stream}/index.m3u8`);
const video = document.getElementById('video');
const state = document.getElementById('state');
/** How long to wait before a playlist that is not there is asked for again, in ms. */
const AGAIN = 2000;

document.title = `${stream} (HLS)`;
document.getElementById('name').textContent = stream;
document.getElementById('webrtc').href = withToken(`/${stream}`);
const link = document.getElementById('address');
link.href = address;
link.textContent = link.href;

async function start() {
  try {
    const response = await fetch(address);
    if (response.ok) {
      video.src = address;
      return;
    }
    state.textContent = await response.text();
  } catch {
    state.textContent = 'The server does not answer; trying again.';
  }
  setTimeout(start, AGAIN);
}

video.addEventListener('playing', () => { state.textContent = 'Playing'; });
video.addEventListener('waiting', () => { state.textContent = 'Waiting for the next segment'; });
video.addEventListener('ended', () => { state.textContent = 'The stream has ended'; });
video.addEventListener('error', () => {
  state.textContent = `It does not play here: ${video.error?.message || 'no reason given'}. Trying again.`;
  setTimeout(start, AGAIN);
});

if (video.canPlayType('application/vnd.apple.mpegurl')) start();
else state.textContent = 'This browser plays no HLS by itself: give the address to a player such as VLC, or watch by WebRTC.';
