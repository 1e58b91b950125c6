// A worker that beats the studio's time: `requestAnimationFrame` stops in hidden tabs, and timers of a hidden page go
// down to one a second, but those of its workers go on. Started by mixer.js.

let due = 0;
let interval = 0;
/** The page has not drawn for the last beat yet: beats that it cannot follow are left out, not queued. */
let busy = false;

function beat() {
  const now = performance.now();
  due = Math.max(due + interval, now);
  setTimeout(beat, due - now);
  if (busy) return;
  busy = true;
  postMessage(null);
}

onmessage = ({ data }) => {
  busy = false;
  if (!data) return;
  interval = data;
  due = performance.now();
  beat();
};
