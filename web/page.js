// Small things that every page needs: elements by their id, and figures as people read them.

export const byId = (id) => document.getElementById(id);

/** What lets this page in stands in its own address (`?token=`). */
const token = new URLSearchParams(location.search).get('token');

/** An address of this server, with what lets this page in: pages hand it on to what they ask for and lead to. */
export function withToken(address) {
  if (!token) return address;
  return `${address}${address.includes('?') ? '&' : '?'}token=${encodeURIComponent(token)}`;
}

for (const link of document.querySelectorAll('a[href^="/"]')) link.href = withToken(link.getAttribute('href'));

/** The server's sentences end without a full stop. */
export const sentence = (text) => (/[.!?…]$/.test(text) ? text : `${text}.`);

/** A name as somebody chose it, without what turns the text beside it around (UAX #9): "(you)" would read "(uoy)". */
export const plain = (name) => name.replace(/[\u202A-\u202E\u2066-\u2069]/g, '');

/** An element with text, which is never read as HTML: names come from anyone. */
export function element(tag, text, className) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** A link with text. */
export function link(text, href, className) {
  const made = element('a', text, className);
  made.href = withToken(href);
  return made;
}

/** A button that stays pressed. */
export const press = (id, pressed) => byId(id).setAttribute('aria-pressed', String(pressed));

/** Plays this track in an element, or with null nothing. */
export function attach(media, track) {
  if ((media.srcObject?.getTracks()[0] ?? null) === track) return;
  media.srcObject = track ? new MediaStream([track]) : null;
}

/** Fills a `dl` with names and values. */
export function showFigures(list, figures) {
  const groups = Object.entries(figures).map(([name, value]) => {
    const group = document.createElement('div');
    group.append(element('dt', name), element('dd', value));
    return group;
  });
  list.replaceChildren(...groups);
}

/** Milliseconds as 01:02:03. */
export function duration(ms) {
  const s = Math.floor(ms / 1000);
  const parts = [Math.floor(s / 3600), Math.floor(s / 60) % 60, s % 60];
  return parts.map((n) => String(n).padStart(2, '0')).join(':');
}
