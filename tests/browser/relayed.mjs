// Plays a stream in Chromium that may use relays alone, and prints what its media travels by.
//
// node relayed.mjs --url http://10.99.1.1:8080/camera

import { options, picture, until, withBrowsers } from './browser.mjs';

const wanted = options({ url: '', screenshot: '' });

/** Runs in the page, before its own scripts. */
function relaysAlone() {
  const Connection = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Connection {
    constructor(configuration) {
      super({ ...configuration, iceTransportPolicy: 'relay' });
      window.connection = this;
    }
  };
}

/** Runs in the page: the pair that is used, and what was decoded. */
async function way() {
  const all = [...(await window.connection.getStats()).values()];
  const pair = all.find((one) => one.type === 'candidate-pair' && one.state === 'succeeded' && one.nominated);
  const local = all.find((one) => one.id === pair?.localCandidateId);
  const video = all.find((one) => one.type === 'inbound-rtp' && one.kind === 'video');
  return video?.framesDecoded > 30 ? { type: local.candidateType, url: local.url, frames: video.framesDecoded } : null;
}

const seen = await withBrowsers({ deadline: 120000, screenshot: wanted.screenshot }, async (open) => {
  const page = await open('chromium', 'about:blank');
  await page.addInitScript(relaysAlone);
  await page.goto(wanted.url);
  await picture(page);
  return until(page, 'thirty pictures', way);
});
console.log(JSON.stringify(seen));
