// LiveKit's data packets (livekit_models.proto, DataPacket), as far as a chat needs them: texts as streams of a topic, in protobuf.
// Called by room-client.js.

/** Where LiveKit's own components chat. */
export const CHAT = 'lk.chat';
/** What one text may have, in octets of UTF-8; what others send beyond it is cut off. */
export const LONGEST = 4000;
/** Texts that have begun and not ended, of all senders together. */
const OPEN = 32;

const [VARINT, FIXED64, LENGTH, FIXED32] = [0, 1, 2, 5];
/** Field numbers. */
const PACKET = { sender: 4, header: 13, chunk: 14, trailer: 15 };
const HEADER = { id: 1, timestamp: 2, topic: 3, mimeType: 4, length: 5, text: 9, inline: 11, compression: 12 };
const CHUNK = { id: 1, index: 2, content: 3 };

function varint(value) {
  const octets = [];
  let rest = BigInt(value);
  while (rest > 127n) {
    octets.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  octets.push(Number(rest));
  return octets;
}

/** A message of fields: numbers become varints, texts and octets have a length. */
function message(fields) {
  const octets = [];
  for (const [number, value] of fields) {
    if (typeof value === 'number') {
      octets.push(...varint(number * 8 + VARINT), ...varint(value));
    } else {
      const content = typeof value === 'string' ? new TextEncoder().encode(value) : value;
      octets.push(...varint(number * 8 + LENGTH), ...varint(content.length), ...content);
    }
  }
  return Uint8Array.from(octets);
}

/** The fields of a message by their numbers, of each the last. Throws what is none. */
function fields(octets) {
  const found = new Map();
  let at = 0;
  const number = () => {
    let [value, shift] = [0n, 0n];
    for (;;) {
      if (at >= octets.length || shift > 63n) throw new Error('no protobuf');
      const octet = octets[at];
      at += 1;
      value |= BigInt(octet & 127) << shift;
      if (octet < 128) return Number(value);
      shift += 7n;
    }
  };
  const take = (length) => {
    if (at + length > octets.length) throw new Error('no protobuf');
    at += length;
    return octets.subarray(at - length, at);
  };
  while (at < octets.length) {
    const tag = number();
    const field = Math.floor(tag / 8);
    switch (tag % 8) {
      case VARINT: found.set(field, number()); break;
      case FIXED64: found.set(field, take(8)); break;
      case LENGTH: found.set(field, take(number())); break;
      case FIXED32: found.set(field, take(4)); break;
      default: throw new Error('no protobuf');
    }
  }
  return found;
}

const text = (octets) => (octets ? new TextDecoder().decode(octets) : '');

/** The packets of a text: they leave one after the other on the reliable channel. */
export function write(words) {
  const content = new TextEncoder().encode(words);
  const id = crypto.randomUUID();
  const header = message([
    [HEADER.id, id], [HEADER.timestamp, Date.now()], [HEADER.topic, CHAT], [HEADER.mimeType, 'text/plain'],
    [HEADER.length, content.length], [HEADER.text, new Uint8Array()],
  ]);
  return [
    message([[PACKET.header, header]]),
    message([[PACKET.chunk, message([[CHUNK.id, id], [CHUNK.index, 0], [CHUNK.content, content]])]]),
    message([[PACKET.trailer, message([[CHUNK.id, id]])]]),
  ];
}

/** Puts texts together from what comes. */
export class Texts {
  #open = new Map();

  /** `{ from, words }` when a text of the chat is whole, else null. `from` is the sender's identity, as the server says. */
  read(octets) {
    try {
      const packet = fields(new Uint8Array(octets));
      const from = text(packet.get(PACKET.sender));
      if (packet.has(PACKET.header)) return this.#begin(from, fields(packet.get(PACKET.header)));
      if (packet.has(PACKET.chunk)) this.#more(from, fields(packet.get(PACKET.chunk)));
      if (packet.has(PACKET.trailer)) return this.#end(from, text(fields(packet.get(PACKET.trailer)).get(CHUNK.id)));
    } catch {
      // Of no kind that is known here.
    }
    return null;
  }

  #begin(from, header) {
    if (text(header.get(HEADER.topic)) !== CHAT || header.get(HEADER.compression)) return null;
    const inline = header.get(HEADER.inline);
    if (inline) return { from, words: text(inline.subarray(0, LONGEST)) };
    if (this.#open.size >= OPEN) this.#open.delete(this.#open.keys().next().value);
    this.#open.set(`${from}/${text(header.get(HEADER.id))}`, { parts: [], size: 0 });
    return null;
  }

  #more(from, chunk) {
    const open = this.#open.get(`${from}/${text(chunk.get(CHUNK.id))}`);
    const content = chunk.get(CHUNK.content);
    if (!open || !content) return;
    const room = content.slice(0, LONGEST - open.size);
    open.parts.push(...room);
    open.size += room.length;
  }

  #end(from, id) {
    const open = this.#open.get(`${from}/${id}`);
    this.#open.delete(`${from}/${id}`);
    return open ? { from, words: text(Uint8Array.from(open.parts)) } : null;
  }
}
