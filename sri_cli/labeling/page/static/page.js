// The labelling page: one image at a time or a grid of them, by keyboard, mouse or touch.

import { ask, enlarge, loadImage, preload } from "./server.js";

const byId = (id) => document.getElementById(id);
const { total, gridImages } = JSON.parse(document.body.dataset.setup);
const UNDECIDED = "undecided"; // in the grid, before the first answer
const NAMES = { plausible: "Plausible", implausible: "Not plausible", unsure: "Unsure", undecided: "Undecided" };
const MARKS = { plausible: "✓", implausible: "✕", unsure: "?", undecided: "–" };
const TURN = { undecided: "implausible", implausible: "unsure", unsure: "plausible", plausible: UNDECIDED };
const KEYS = {
  y: "plausible", n: "implausible", u: "unsure", b: "undo", Backspace: "undo", ArrowLeft: "back",
  ArrowRight: "forward", g: "grid", r: "rest", z: "zoom", "?": "help",
};
const SECTIONS = ["single", "grid", "end", "stopped"];
const TOOLS_IN = { back: ["single", "end"], forward: ["single"], grid: ["single", "grid"], zoom: ["grid"] };
const TILE_PX = 150; // least size of an image in the grid, so that a gap can be seen
const FRAME_PX = 8, GAP_PX = 8, MOST_COLUMNS = 7;
const CONFLICT = "The answers were changed in another tab; nothing was saved now. Check and answer again.";

let state; // of the server: verdicts by position, and version
let mode = "single";
let busy = false;
let since; // when the image or the grid appeared
const single = { position: null, image: null };
// `verdicts`: position -> verdict of images that are decided, kept over undo; `saved`: the last batch,
// for undo; `focused`: the position of the tile that was touched last.
const grid = { positions: [], columns: 2, verdicts: new Map(), saved: {}, focused: null };

const shown = (id) => !byId(id).hidden;
const unanswered = () => state.verdicts.flatMap((verdict, i) => (verdict === null ? [i] : []));
const secondsEach = (count) => Math.min((performance.now() - since) / 1000 / count, 86400);

// ---- State, progress and messages

// Do one thing at a time. After an error nothing has changed, and the action can be tried again.
async function run(action) {
  if (busy) return;
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  byId("alert").replaceChildren();
  try {
    await action();
  } catch (error) {
    alertWith(error.message, () => run(action));
  } finally {
    busy = false;
    document.body.removeAttribute("aria-busy");
  }
}

// Post `body`; null, with a message, where another tab was faster.
async function send(path, body) {
  const reply = await ask(path, { ...body, version: state?.version });
  takeState(reply);
  if (!reply.conflict) return reply;
  await (shown("single") ? showSingle(single.position) : showNext());
  alertWith(CONFLICT);
  return null;
}

function takeState(reply) {
  state = reply;
  const done = total - unanswered().length;
  byId("progress").value = done;
  byId("progress-words").textContent = `${done} of ${total} judged`;
}

function reveal(name) {
  const before = SECTIONS.find(shown);
  for (const id of SECTIONS) byId(id).hidden = id !== name;
  document.querySelector('[data-action="grid"]').setAttribute("aria-pressed", String(name === "grid"));
  document.body.classList.toggle("wide", name === "grid");
  for (const [tool, sections] of Object.entries(TOOLS_IN))
    document.querySelector(`[data-action="${tool}"]`).hidden = !sections.includes(name);
  if (name !== before) byId(name).querySelector("h2")?.focus();
}

// Show the first images without an answer, or the end. `message` is for screen readers.
async function showNext(message = "") {
  const next = unanswered()[0];
  if (next === undefined) reveal("end");
  else await (mode === "grid" ? showGrid() : showSingle(next));
  if (next === undefined) announce("All images are judged. Thank you.");
  else announce(`${message} ${byId("announcement").textContent}`.trim());
}

function announce(message) {
  byId("announcement").textContent = message;
}

function alertWith(message, again) {
  const text = document.createElement("p");
  text.textContent = message;
  byId("alert").replaceChildren(text);
  byId("alert").scrollIntoView({ block: "nearest" });
  if (!again) return;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Try again";
  button.addEventListener("click", again);
  byId("alert").append(button);
}

// ---- One image at a time

// Nothing changes before the image is loaded.
async function showSingle(position) {
  const image = await loadImage(position, total);
  const verdict = state.verdicts[position];
  const answer = verdict ? `, your answer: ${NAMES[verdict].toLowerCase()}` : "";
  Object.assign(single, { position, image });
  byId("stage").replaceChildren(image);
  byId("caption").textContent = `Image ${position + 1}${answer}`;
  for (const button of document.querySelectorAll("#single [data-action]"))
    button.setAttribute("aria-pressed", String(button.dataset.action === verdict));
  since = performance.now();
  reveal("single");
  fitSingle();
  announce(`Image ${position + 1} of ${total}${answer}.`);
  preload(unanswered().filter((other) => other !== position).slice(0, 2), total);
}

async function answerSingle(verdict) {
  const answers = [{ position: single.position, verdict }];
  const saved = await send("/api/answers", { answers, seconds: secondsEach(1), mode: "single" });
  if (saved) await showNext(`Saved: ${NAMES[verdict].toLowerCase()}.`);
}

// Look at the image before or after, not beyond the first without an answer.
function look(step) {
  const position = (shown("end") ? total : single.position) + step;
  const last = unanswered()[0] ?? total;
  if (position < 0 || (step > 0 && position > last)) return;
  run(() => (position === total ? showNext() : showSingle(position)));
}

function fitSingle() {
  const { clientWidth, clientHeight } = byId("stage");
  if (single.image && clientWidth) enlarge(single.image, clientWidth, clientHeight);
}

// ---- The grid: images are undecided until the rater decides; those decided are saved together

async function showGrid() {
  const left = unanswered();
  const positions = left.slice(0, gridImages);
  const images = await Promise.all(positions.map((position) => loadImage(position, total)));
  grid.positions = positions; // once they are there: the page before must stay what Save saves
  byId("tiles").replaceChildren(...grid.positions.map((position, i) => makeTile(position, images[i])));
  countDecided();
  since = performance.now();
  reveal("grid");
  fitGrid();
  window.scrollTo(0, 0);
  byId("tiles").firstElementChild.tabIndex = 0; // a window in the background tells no focus
  grid.focused = grid.positions[0];
  byId("tiles").firstElementChild.focus({ preventScroll: true });
  announce(`${grid.positions.length} images, from ${grid.positions[0] + 1} to ${grid.positions.at(-1) + 1}.`);
  preload(left.slice(grid.positions.length, 2 * gridImages), total);
}

function makeTile(position, image) {
  const tile = document.createElement("button");
  tile.type = "button";
  tile.className = "tile";
  tile.tabIndex = -1;
  tile.dataset.position = position;
  tile.append(image, document.createElement("span"));
  markTile(tile, grid.verdicts.get(position) ?? UNDECIDED);
  return tile;
}

function markTile(tile, verdict) {
  tile.dataset.verdict = verdict;
  tile.lastElementChild.textContent = `${MARKS[verdict]} ${NAMES[verdict]}`;
  tile.setAttribute("aria-label", `Image ${Number(tile.dataset.position) + 1}: ${NAMES[verdict].toLowerCase()}`);
}

function decide(tile, verdict) {
  if (busy) return;
  const position = Number(tile.dataset.position);
  if (verdict === UNDECIDED) grid.verdicts.delete(position);
  else grid.verdicts.set(position, verdict);
  grid.focused = position;
  markTile(tile, verdict);
  countDecided();
  announce(tile.getAttribute("aria-label"));
}

const decided = () => grid.positions.filter((position) => grid.verdicts.has(position));

function countDecided() {
  const count = decided().length;
  const rest = grid.positions.length - count;
  byId("save").textContent = `Save ${count} of ${grid.positions.length}`;
  byId("save").disabled = !count;
  byId("rest").firstChild.textContent = `Mark the ${rest < grid.positions.length ? `other ${rest}` : rest} as plausible `;
  byId("rest").disabled = !rest;
}

// The rater's confirmation that all undecided images of this page are plausible; saves nothing.
function markRest() {
  if (!shown("grid") || busy) return;
  const tiles = [...byId("tiles").children].filter((tile) => tile.dataset.verdict === UNDECIDED);
  for (const tile of tiles) {
    grid.verdicts.set(Number(tile.dataset.position), "plausible");
    markTile(tile, "plausible");
  }
  countDecided();
  announce(`${tiles.length} images marked plausible.`);
}

// Move the focus in the grid.
function moveFocus(columns, rows) {
  const tiles = [...byId("tiles").children];
  const from = tiles.indexOf(document.activeElement);
  const to = tiles[from + columns + rows * grid.columns];
  if (from >= 0) to?.focus();
}

async function saveGrid() {
  const answers = decided().map((position) => ({ position, verdict: grid.verdicts.get(position) }));
  if (!answers.length) return announce("No image is decided yet.");
  const saved = await send("/api/answers", { answers, seconds: secondsEach(answers.length), mode: "grid" });
  if (!saved) return;
  grid.saved = { count: answers.length, version: saved.version };
  await showNext(`Saved: ${answers.length} images.`);
}

// The whole image, as large as the window allows in whole multiples.
async function zoom() {
  if (!shown("grid") || grid.focused === null) return;
  const dialog = byId("zoom");
  if (dialog.open) return dialog.close();
  const image = (await loadImage(grid.focused, total)).cloneNode();
  byId("zoomed").replaceChildren(image);
  byId("zoom-title").textContent = `Image ${grid.focused + 1}`;
  dialog.showModal();
  fitZoom();
}

function fitZoom() {
  const image = byId("zoomed").firstElementChild;
  const { clientWidth, clientHeight } = byId("zoomed");
  if (image && clientWidth) enlarge(image, clientWidth, clientHeight);
}

function fitGrid() {
  const tiles = byId("tiles");
  const width = tiles.clientWidth + GAP_PX;
  const images = [...tiles.querySelectorAll("img")];
  if (!tiles.clientWidth || !images.length) return;
  const side = images[0].naturalWidth;
  const least = side * Math.ceil(TILE_PX / side) + FRAME_PX + GAP_PX;
  grid.columns = Math.max(2, Math.min(MOST_COLUMNS, Math.floor(width / least)));
  tiles.style.gridTemplateColumns = `repeat(${grid.columns}, 1fr)`;
  const inside = width / grid.columns - GAP_PX - FRAME_PX;
  for (const image of images) enlarge(image, inside, inside);
}

// ---- Actions of keys and buttons

const judge = (verdict) => () => {
  if (shown("single")) run(() => answerSingle(verdict));
  const tile = document.activeElement.closest(".tile");
  if (!shown("grid") || !tile) return;
  decide(tile, verdict);
  moveFocus(1, 0);
};

const actions = {
  plausible: judge("plausible"),
  implausible: judge("implausible"),
  unsure: judge("unsure"),
  undo: () => run(undo),
  back: () => shown("grid") || look(-1),
  forward: () => shown("single") && look(1),
  grid: () => shown("end") || run(changeMode),
  help: () => (byId("help").open ? byId("help").close() : byId("help").showModal()),
  rest: markRest,
  save: () => run(saveGrid),
  zoom: () => run(zoom),
  finish: () => run(finish),
};

// Take back the last answer; in the grid, all of the last batch if nothing came after it.
async function undo() {
  const whole = shown("grid") && grid.saved.version === state.version;
  const reply = await send("/api/undo", { count: whole ? grid.saved.count : 1 });
  if (!reply) return;
  const { undone } = reply;
  if (!undone.length) return announce("There is nothing to undo.");
  const show = async () => {
    await (shown("grid") ? showGrid() : showSingle(undone.at(-1)));
    announce(`Undone: ${undone.length}. ${byId("announcement").textContent}`);
  };
  try {
    await show();
  } catch (error) {
    alertWith(error.message, () => run(show)); // the answer is taken back already
  }
}

async function changeMode() {
  mode = shown("grid") ? "single" : "grid";
  await showNext();
}

async function finish() {
  if (!(await send("/api/finish", {}))) return;
  byId("tools").hidden = true;
  reveal("stopped");
}

function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || !shown("tools")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const modal = document.querySelector("dialog:modal");
  if (!modal && onArrow(key)) return event.preventDefault();
  if (event.repeat && key === "Enter") event.preventDefault(); // else a button answers each time
  if (event.repeat || (key.length === 1 && !byId("letters").checked)) return;
  const tile = document.activeElement.closest(".tile");
  const action = key === "Enter" && tile && !modal ? "save" : KEYS[key];
  if (!action || (modal && modal.id !== action)) return;
  event.preventDefault();
  actions[action]();
}

// Arrows move the focus in the grid. True: this key did.
function onArrow(key) {
  const x = { ArrowLeft: -1, ArrowRight: 1 }[key] ?? 0;
  const y = { ArrowUp: -1, ArrowDown: 1 }[key] ?? 0;
  if ((!x && !y) || !shown("grid") || !byId("tiles").contains(document.activeElement)) return false;
  moveFocus(x, y);
  return true;
}

document.addEventListener("keydown", onKey);
byId("tiles").addEventListener("click", ({ target }) => {
  const tile = target.closest(".tile");
  if (tile) decide(tile, TURN[tile.dataset.verdict]);
});
for (const button of document.querySelectorAll("[data-action]"))
  button.addEventListener("click", ({ detail }) => {
    // The second click of a double click would judge the next image before it is seen.
    if (detail < 2 || !(button.dataset.action in NAMES)) actions[button.dataset.action]();
  });
for (const button of document.querySelectorAll("[data-close]"))
  button.addEventListener("click", () => button.closest("dialog").close());
new ResizeObserver(fitSingle).observe(byId("stage"));
new ResizeObserver(fitGrid).observe(byId("grid"));
new ResizeObserver(fitZoom).observe(byId("zoomed"));
byId("tiles").addEventListener("focusin", ({ target }) => {
  const tile = target.closest(".tile");
  for (const other of byId("tiles").children) other.tabIndex = other === tile ? 0 : -1;
  grid.focused = Number(tile.dataset.position);
});
window.addEventListener("beforeunload", (event) => {
  if (shown("grid") && decided().some((position) => state.verdicts[position] === null)) event.preventDefault();
});

run(async () => {
  takeState(await ask("/api/state"));
  await showNext();
  byId("tools").hidden = false;
});
