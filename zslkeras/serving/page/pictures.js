// Images as the server takes them: the bytes of a JPEG or a PNG, in base64.

const TAKEN = ["image/jpeg", "image/png"];

// {name, url, image}; other formats become a PNG here, if the browser can read them.
export async function read(file, limits) {
  const content = TAKEN.includes(file.type) ? file : await asPng(file);
  if (content.size * 1.4 > limits.body) throw new Error(`${file.name} is too large for the server.`);
  return { name: file.name, url: URL.createObjectURL(content), image: await base64(content) };
}

async function asPng(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} is not an image that this browser can read.`);
  }
  const canvas = Object.assign(document.createElement("canvas"), { width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

function base64(content) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(content);
  });
}

const EVEN = 1e-4; // of the largest value: a map that differs by less looks everywhere alike

// Draws a map [H][W] of attention with a pixel per place; the style sheet stretches it over the image. Returns whether
// some places stand out.
export function drawMap(canvas, map) {
  const values = map.flat();
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const uneven = most - least > EVEN * Math.abs(most);
  canvas.width = map[0].length;
  canvas.height = map.length;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  values.forEach((value, place) => {
    const share = uneven ? (value - least) / (most - least) : 0;
    pixels.data.set([255, 64 + 150 * share, 0, 215 * share], 4 * place);
  });
  context.putImageData(pixels, 0, 0);
  return uneven;
}
