// Firefox that knows no picture but VP8, as older ones and some systems' do.

import { launch as firefox } from './firefox.mjs';

/** See browser.mjs. */
export const launch = (size) => firefox(size, {
  'media.peerconnection.video.vp9_enabled': false,
  'media.webrtc.codec.video.av1.enabled': false,
});
