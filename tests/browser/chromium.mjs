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

/** Runs `use(page)` in a new browser, which is closed whatever happens; no longer than `deadline` ms. */
export async function withPage(deadline, use, size = { width: 1280, height: 800 }) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS });
  const timer = setTimeout(() => {
    console.error(`deadline of ${deadline} ms passed`);
    browser.close().finally(() => process.exit(2));
  }, deadline);
  try {
    const context = await browser.newContext({ viewport: size, permissions: ['camera', 'microphone'] });
    const page = await context.newPage();
    page.on('console', (message) => console.error(`[page] ${message.text()}`));
    page.on('pageerror', (error) => console.error(`[page] ${error}`));
    return await use(page);
  } finally {
    clearTimeout(timer);
    await browser.close();
  }
}

/** `--name value` arguments; every one has a default, which tells its type. */
export function options(defaults) {
  const result = { ...defaults };
  const args = process.argv.slice(2);
  while (args.length > 0) {
    const name = args.shift().replace(/^--/, '');
    if (!(name in defaults)) throw new Error(`unknown option ${name}; there are ${Object.keys(defaults)}`);
    const value = args.shift();
    result[name] = typeof defaults[name] === 'number' ? Number(value) : value;
  }
  return result;
}
