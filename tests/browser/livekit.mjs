// livekit-client as it comes from npm, on a page of its own.

import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';

const library = createRequire(import.meta.url).resolve('livekit-client').replace(/[^/]+$/, 'livekit-client.umd.js');

/** Serves this page, and `/livekit.js` that it loads, from localhost: cameras are for pages from there alone. */
export async function serve(page) {
  const script = await readFile(library);
  const server = createServer((request, response) => {
    const isScript = request.url === '/livekit.js';
    response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
    response.end(isScript ? script : page);
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return server;
}

/**
 * Opens this page, with `/livekit.js` that it loads, in a Chromium that reaches no server of ours on localhost: in another network.
 */
export async function openThere(open, browser, page) {
  const script = await readFile(library);
  const there = await open(browser, 'about:blank');
  await there.route('http://localhost/**', (route) => {
    const isScript = route.request().url().endsWith('/livekit.js');
    return route.fulfill({ contentType: isScript ? 'text/javascript' : 'text/html', body: isScript ? script : page });
  });
  await there.goto('http://localhost/');
  return there;
}
