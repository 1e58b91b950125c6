// Runs in the page: reads the time code strip of every frame that is shown.
//
// The strip: two rows at the top, each a sixteenth of the height, of 32 cells. The first row is the low 32 bits of the
// Unix time in milliseconds at which the source drew it, the highest bit on the left, white is 1. The second row is its
// complement: a frame whose rows are not complements counts as unreadable.

window.watchTimecode = (video) => {
  const seen = { gaps: [], latencies: [], unreadable: 0, frames: 0, sizes: [] };
  const canvas = new OffscreenCanvas(32, 2);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  let last = null;
  const read = () => {
    const [width, cell] = [video.videoWidth / 32, video.videoHeight / 16];
    // The middle of each cell alone, so that neighbours don't bleed in.
    for (let bit = 0; bit < 32; bit++) {
      for (let row = 0; row < 2; row++) {
        context.drawImage(video, (bit + 0.4) * width, (row + 0.4) * cell, width * 0.2, cell * 0.2, bit, row, 1, 1);
      }
    }
    const { data } = context.getImageData(0, 0, 32, 2);
    let value = 0;
    for (let bit = 0; bit < 32; bit++) {
      const one = data[bit * 4] > 127;
      if (one === data[(32 + bit) * 4] > 127) return null;
      value = value * 2 + (one ? 1 : 0);
    }
    return value;
  };
  const shown = (now) => {
    seen.frames += 1;
    const gap = last === null ? null : { at: now, ms: now - last };
    if (gap !== null) seen.gaps.push(gap);
    last = now;
    const size = `${video.videoWidth}x${video.videoHeight}`;
    if (seen.sizes.at(-1)?.size !== size) seen.sizes.push({ size, at: now });
    const drawn = read();
    if (drawn === null) seen.unreadable += 1;
    else {
      const wall = Math.round(performance.timeOrigin + performance.now());
      seen.latencies.push((wall - drawn) >>> 0);
      // When the frame behind the gap was drawn, and how old it was: what was late, or what the source did not make.
      if (gap !== null) Object.assign(gap, { drawn, age: (wall - drawn) >>> 0 });
    }
    video.requestVideoFrameCallback(shown);
  };
  video.requestVideoFrameCallback(shown);
  return seen;
};
