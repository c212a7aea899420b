// Talking to the server: every failure becomes words for the rater.

export class Trouble extends Error {}

const AWAY =
  "The server does not answer. If it was stopped, start it again with the same command and open " +
  "the address that it prints.";
const RESTARTED =
  "The server was restarted, and this page belongs to the one before. Open the new address that " +
  "it printed. Every answer that was saved is kept.";
const PATIENCE_MS = 15000;
const KEPT = 60; // pictures

// The JSON that `path` answers with; `body`, if given, is sent as JSON. A 409 (another tab was
// faster) is an answer, too, with `conflict` set.
export async function ask(path, body) {
  const how = { credentials: "same-origin", cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) };
  if (body !== undefined) {
    how.method = "POST";
    how.headers = { "Content-Type": "application/json" };
    how.body = JSON.stringify(body);
  }
  let reply, data;
  try {
    reply = await fetch(path, how);
    data = await reply.json();
  } catch {
    throw new Trouble(AWAY);
  }
  if (reply.status === 403) throw new Trouble(RESTARTED);
  if (!reply.ok && reply.status !== 409) throw new Trouble(data.error || `Error ${reply.status}`);
  return { ...data, conflict: reply.status === 409 };
}

const pictures = new Map();

// The picture at `place`, loaded and decoded: it shows at once. Asked for ahead, it is kept.
export function picture(place, total) {
  if (!pictures.has(place)) {
    const image = new Image();
    image.src = `/pictures/${place}.png`;
    image.alt = `Picture ${place + 1} of ${total}`;
    image.draggable = false;
    pictures.set(place, image.decode().then(() => image, () => missing(place)));
    if (pictures.size > KEPT) pictures.delete(pictures.keys().next().value);
  }
  return pictures.get(place);
}

async function missing(place) {
  pictures.delete(place);
  await ask("/api/state"); // says why, if it is the server
  throw new Trouble("The picture could not be loaded.");
}

// Load ahead; what goes wrong is told when the picture is wanted.
export function expect(places, total) {
  for (const place of places) picture(place, total).catch(() => {});
}

// Size `image` to the largest whole multiple of its pixels that fits in width x height (CSS px),
// times `zoom`. On the screen's own pixels, so that all of its pixels are of one size.
export function enlarge(image, width, height, zoom = 1) {
  const ratio = window.devicePixelRatio || 1;
  const fits = Math.min((width * ratio) / image.naturalWidth, (height * ratio) / image.naturalHeight);
  const scale = zoom * (fits >= 1 ? Math.floor(fits) : fits);
  image.classList.toggle("shrunk", scale < 1);
  image.style.width = `${(image.naturalWidth * scale) / ratio}px`;
  image.style.height = `${(image.naturalHeight * scale) / ratio}px`;
}
