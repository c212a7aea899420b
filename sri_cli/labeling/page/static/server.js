// Requests to the server, images, and their size on the screen.

const NO_ANSWER =
  "The server does not answer. If it was stopped, start it again with the same command and open the " +
  "address that it prints.";
const RESTARTED =
  "The server was restarted, and this page belongs to the one before. Open the new address that it " +
  "printed. All answers are saved.";
const TIMEOUT_MS = 15000;
const CACHED_IMAGES = 60;

// The server's JSON; `body`, if given, is posted as JSON. Status 409 (the answers have changed in
// another tab) is a result, too, with `conflict` set; any other failure is an error to show.
export async function ask(path, body) {
  const options = { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) };
  if (body !== undefined) {
    options.method = "POST";
    const { session } = JSON.parse(document.body.dataset.setup);
    options.headers = { "Content-Type": "application/json", "X-Session": session };
    options.body = JSON.stringify(body);
  }
  let reply, data;
  try {
    reply = await fetch(path, options);
    data = await reply.json();
  } catch {
    throw new Error(NO_ANSWER);
  }
  if (reply.status === 403) throw new Error(RESTARTED);
  if (!reply.ok && reply.status !== 409) throw new Error(data.error);
  return { ...data, conflict: reply.status === 409 };
}

const images = new Map(); // position -> promise of a decoded image

// The image at `position`, loaded and decoded, so that it appears at once.
export function loadImage(position, total) {
  if (!images.has(position)) {
    const image = new Image();
    image.src = `/images/${position}.png`;
    image.alt = `Image ${position + 1} of ${total}`;
    image.draggable = false;
    images.set(position, image.decode().then(() => image, () => failed(position)));
    if (images.size > CACHED_IMAGES) images.delete(images.keys().next().value);
  }
  return images.get(position);
}

async function failed(position) {
  images.delete(position);
  await ask("/api/state"); // the reason, if it is the server
  throw new Error("The image could not be loaded.");
}

// Load images ahead; an error shows when the image is needed.
export function preload(positions, total) {
  for (const position of positions) loadImage(position, total).catch(() => {});
}

// Size `image` to the largest integer multiple of its pixels that fits in width x height (CSS px),
// in device pixels: then all of its pixels have the same size.
export function enlarge(image, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const fits = Math.min((width * ratio) / image.naturalWidth, (height * ratio) / image.naturalHeight);
  const scale = fits >= 1 ? Math.floor(fits) : fits;
  image.classList.toggle("shrunk", scale < 1);
  image.style.width = `${(image.naturalWidth * scale) / ratio}px`;
  image.style.height = `${(image.naturalHeight * scale) / ratio}px`;
}
