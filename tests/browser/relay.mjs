// A TCP relay that keeps back what passes, for the time that a long way takes.

import { once } from 'node:events';
import { createServer, connect } from 'node:net';

import { pause } from './browser.mjs';

/** Copies what comes, each part so many ms later, and as fast as it is taken. */
function carry(from, to, delay) {
  let before = Promise.resolve();
  from.on('data', (data) => {
    const due = Date.now() + delay;
    before = before.then(async () => {
      await pause(Math.max(0, due - Date.now()));
      if (to.writable && !to.write(data)) await Promise.race([once(to, 'drain'), once(to, 'close')]).catch(() => {});
    });
  });
  from.on('close', () => before.then(() => to.destroy()));
  from.on('error', () => {});
}

/** Listens at a port of its own, and hands connections to `to`. Each way takes `delay` ms. */
export async function relay(to, delay) {
  const sockets = new Set();
  const server = createServer({ noDelay: true }, (near) => {
    const far = connect({ port: to, host: '127.0.0.1', noDelay: true });
    carry(near, far, delay);
    carry(far, near, delay);
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on('close', () => sockets.delete(socket));
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const close = () => {
    server.close();
    sockets.forEach((socket) => socket.destroy());
  };
  return { port: server.address().port, close };
}
