// Debian's Chromium as the tests use it: no window, no traffic of its own, fake camera and microphone.

import { chromium } from 'playwright-core';

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--autoplay-policy=no-user-gesture-required',
  // Namespaces have nothing but `lo`.
  '--allow-loopback-in-peer-connection',
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
];

/** See browser.mjs. */
export async function launch(size, executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium', more = []) {
  const browser = await chromium.launch({ executablePath, args: [...FLAGS, ...more] });
  const context = await browser.newContext({ viewport: size, ignoreHTTPSErrors: true, permissions: ['camera', 'microphone'] });
  return { newPage: () => context.newPage(), close: () => browser.close() };
}
