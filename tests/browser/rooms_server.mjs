// SPDX-License-Identifier: MPL-2.0
// An application with LiveKit's server SDK, as it comes from npm: it administers rooms and is told of them by webhooks.

import http from 'node:http';
import { parseArgs } from 'node:util';
import { AccessToken, RoomServiceClient, WebhookReceiver } from 'livekit-server-sdk';

const { values: options } = parseArgs({ options: Object.fromEntries(['url', 'key', 'secret', 'port'].map((name) => [name, { type: 'string' }])) });
const { url, key, secret } = options;

const told = [];
const receiver = new WebhookReceiver(key, secret);
let refusals = 1;
const hooks = http.createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part)).on('end', async () => {
    // The first try of all is not taken: it comes again.
    if (refusals-- > 0) {
      response.writeHead(503).end();
      return;
    }
    try {
      const event = await receiver.receive(Buffer.concat(parts).toString(), request.headers.authorization);
      told.push([event.event, event.room?.name]);
      response.writeHead(200).end();
    } catch (error) {
      told.push(['refused', String(error)]);
      response.writeHead(401).end();
    }
  });
});
await new Promise((resolve) => { hooks.listen(Number(options.port), '127.0.0.1', resolve); });

const client = new RoomServiceClient(url, key, secret);
const refused = async (call) => {
  try {
    await call;
    return null;
  } catch (error) {
    return [error.status, error.code];
  }
};
const made = await client.createRoom({ name: 'made', emptyTimeout: 60, maxParticipants: 10, metadata: 'm0' });
const again = await client.createRoom({ name: 'made', emptyTimeout: 99 });
const listed = await client.listRooms();
const none = await client.listRooms(['another']);
const changed = await client.updateRoomMetadata('made', 'm1');
const nobody = await client.listParticipants('made');
const faults = {
  participant: await refused(client.getParticipant('made', 'ann')),
  removed: await refused(client.removeParticipant('made', 'ann')),
  room: await refused(client.deleteRoom('another')),
  data: await refused(client.sendData('another', new Uint8Array([1]), 0, {})),
  secret: await refused(new RoomServiceClient(url, key, `${secret}x`).listRooms()),
};
// protobuf, as other SDKs write it.
const token = new AccessToken(key, secret, { identity: 'app' });
token.addGrant({ roomList: true });
const answer = await fetch(`${url}/twirp/livekit.RoomService/ListRooms`, {
  method: 'POST',
  headers: { authorization: `Bearer ${await token.toJwt()}`, 'content-type': 'application/protobuf' },
});
const octets = Buffer.from(await answer.arrayBuffer());
await client.deleteRoom('made');
for (let n = 0; n < 400 && !told.some(([event]) => event === 'room_finished'); n += 1) {
  await new Promise((resolve) => { setTimeout(resolve, 50); });
}
hooks.close();
hooks.closeAllConnections();
console.log(JSON.stringify({
  made: [made.name, made.emptyTimeout, made.maxParticipants, made.metadata],
  same: again.sid === made.sid && again.emptyTimeout === 60,
  listed: listed.map((room) => room.name),
  none: none.length,
  changed: changed.metadata,
  nobody: nobody.length,
  faults,
  protobuf: [answer.status, answer.headers.get('content-type'), octets.includes('made')],
  told,
}));
