// Chromium in another network: CHROMIUM_FAR is a program that starts it there, if this script is not there itself.

import { launch as chromium } from './chromium.mjs';

// Pages that come from no server (livekit.mjs) are none of a local network's, and would reach nothing there.
const FLAGS = ['--disable-features=LocalNetworkAccessChecks'];

/** See browser.mjs. */
export const launch = (size) => chromium(size, process.env.CHROMIUM_FAR, FLAGS);
