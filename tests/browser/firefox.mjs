// Debian's Firefox as the tests use it: no window, no traffic of its own, fake camera and microphone. It has no H.264:
// that comes from elsewhere when Firefox first runs with a network. It connects with no setting of its own where there
// is a default route; with loopback alone it has no address to offer.

import puppeteer from 'puppeteer-core';

const PREFERENCES = {
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  // Nothing of its profile is wanted afterwards: end in half a second instead of five.
  'toolkit.shutdown.fastShutdownStage': 3,
};

/** See browser.mjs; `more` are preferences. */
export async function launch(size, more = {}) {
  const browser = await puppeteer.launch({
    browser: 'firefox',
    executablePath: process.env.FIREFOX ?? '/usr/bin/firefox-esr',
    headless: true,
    defaultViewport: size,
    extraPrefsFirefox: { ...PREFERENCES, ...more },
  });
  return { newPage: () => browser.newPage(), close: () => browser.close() };
}
