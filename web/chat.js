// What people in a room write to one another. Called by room.js.

import { byId, element } from './page.js';

/** Lines that are kept. */
const LINES = 500;

export class Chat {
  unread = 0;
  #list = byId('said');

  get open() {
    return !byId('chat').hidden;
  }

  set open(open) {
    byId('chat').hidden = !open;
    if (!open) return;
    this.unread = 0;
    this.#list.scrollTop = this.#list.scrollHeight;
    byId('words').focus();
  }

  /** Words are text, whatever they hold. Returns their line. */
  add(who, words) {
    const line = document.createElement('li');
    const time = new Date().toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
    line.append(element('b', `${who} · ${time}`), element('span', words));
    const atEnd = this.#list.scrollHeight - this.#list.scrollTop - this.#list.clientHeight < 40;
    this.#list.append(line);
    while (this.#list.children.length > LINES) this.#list.firstChild.remove();
    if (atEnd) this.#list.scrollTop = this.#list.scrollHeight;
    if (!this.open) this.unread += 1;
    return line;
  }

  /** What the writer should know of a line that was not sent. */
  unsent(line) {
    line.classList.add('unsent');
    line.append(element('small', 'Not sent'));
    if (line === this.#list.lastChild) this.#list.scrollTop = this.#list.scrollHeight;
  }
}
