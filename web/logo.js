// A logo from a file: made as small as it is shown, so that it can be remembered. Called by studio.js.

/** Twice the size at which mixer.js draws it. */
const BOX = { width: 400, height: 200 };
/** Images without a size of their own, such as some SVGs, get this one. */
const SIZE = { width: 300, height: 150 };

/** The image at a data URL, when it can be drawn. */
export async function decoded(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

/** A file's image as a small PNG in a data URL; fails where it is no image, or one that would taint the canvas. */
export async function readLogo(file) {
  const image = await decoded(await dataUrl(file));
  const width = image.naturalWidth || SIZE.width;
  const height = image.naturalHeight || SIZE.height;
  const scale = Math.min(1, BOX.width / width, BOX.height / height);
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL('image/png');
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
