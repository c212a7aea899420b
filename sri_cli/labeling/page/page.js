// The page as a whole: what is shown, keys, progress, and what both ways of judging share.

import { Grid } from "./grid.js";
import { Single } from "./single.js";
import { ask, enlarge } from "./talk.js";

const at = (id) => document.getElementById(id);
const WIDE = window.matchMedia("(min-width: 60rem)");
const SECTIONS = ["single", "grid", "end", "stopped"];
const ONLY_IN = { back: ["single", "end"], forward: ["single"], zoom: ["single"], grid: ["single", "grid"] };
const EXAMPLE_PX = 144; // two beside each other in the panel

const desk = {
  setup: JSON.parse(document.body.dataset.setup),
  words: { plausible: "Plausible", implausible: "Not plausible", unsure: "Unsure" },
  marks: { plausible: "✓", implausible: "✕", unsure: "?" },
  state: null,
  mode: "single",
  busy: false,

  // Places without an answer, in order.
  unanswered() {
    return this.state.verdicts.flatMap((verdict, place) => (verdict === null ? [place] : []));
  },

  // Do one thing at a time. What fails is said, changes nothing, and can be tried again.
  async work(deed) {
    if (this.busy) return;
    this.busy = true;
    document.body.setAttribute("aria-busy", "true");
    at("alert").replaceChildren();
    try {
      await deed();
    } catch (error) {
      this.complain(`Not done. ${error.message}`, () => this.work(deed));
    } finally {
      this.busy = false;
      document.body.removeAttribute("aria-busy");
    }
  },

  // The state that the server sent: progress follows it.
  take(state) {
    this.state = state;
    const done = state.verdicts.filter((verdict) => verdict !== null).length;
    at("progress").value = done;
    at("progress-words").textContent = `${done} of ${this.setup.total} judged${timeLeft(state, done)}`;
  },

  // Go on with the first picture without an answer, in the mode chosen, or to the end.
  async onward(words) {
    const done = this.state.next === null;
    if (done) this.reveal("end");
    else await (this.mode === "grid" ? grid.show() : single.show(this.state.next));
    if (done) this.say("All pictures are judged. Thank you.");
    else if (words) this.say(`${words} ${at("said").textContent}`);
  },

  reveal(name) {
    const before = SECTIONS.find((id) => !at(id).hidden);
    for (const id of SECTIONS) at(id).hidden = id !== name;
    this.press("grid", name === "grid");
    document.body.classList.toggle("wide", name === "grid");
    for (const [deed, where] of Object.entries(ONLY_IN))
      document.querySelector(`[data-deed="${deed}"]`).hidden = !where.includes(name);
    if (name !== before && (name === "end" || name === "stopped")) at(name).querySelector("h2").focus();
  },

  say(words) {
    at("said").textContent = words;
  },

  complain(words, again) {
    const said = document.createElement("p");
    said.textContent = words;
    at("alert").replaceChildren(said);
    at("alert").scrollIntoView({ block: "nearest" });
    if (!again) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Try again";
    button.addEventListener("click", again);
    at("alert").append(button);
  },

  press(deed, on) {
    document.querySelector(`[data-deed="${deed}"]`).setAttribute("aria-pressed", String(on));
  },
};

const single = new Single(desk);
const grid = new Grid(desk);

function timeLeft({ seconds_left: seconds }, done) {
  if (seconds === null || done === desk.setup.total) return "";
  if (seconds < 60) return ", less than a minute left";
  const minutes = Math.round(seconds / 60);
  return minutes < 100 ? `, about ${minutes} min left` : `, about ${Math.round(minutes / 60)} h left`;
}

const shown = (name) => !at(name).hidden;

const deeds = {
  plausible: () => judge("plausible"),
  implausible: () => judge("implausible"),
  unsure: () => judge("unsure"),
  undo,
  back: () => shown("grid") || single.look(-1),
  forward: () => shown("single") && single.look(1),
  zoom: () => shown("single") && single.zoom(),
  grid: () => shown("end") || changeMode(),
  examples: toggleExamples,
  help: () => (at("help").open ? at("help").close() : at("help").showModal()),
};

function judge(verdict) {
  if (shown("single")) single.answer(verdict);
  if (shown("grid")) grid.judge(verdict);
}

function undo() {
  desk.work(async () => {
    const count = shown("grid") ? grid.undoes() : 1;
    const data = await ask("/api/undo", { count, version: desk.state.version });
    desk.take(data);
    if (data.conflict) {
      if (!shown("end")) await desk.onward("");
      desk.complain("Nothing was taken back: answers had changed in another tab. Press undo again to take back the last of them.");
    } else if (!data.undone.length) {
      desk.say("Nothing to take back.");
    } else if (shown("grid")) {
      await desk.onward(`Taken back: ${data.undone.length}.`);
    } else {
      await single.show(data.undone.at(-1));
      desk.say(`Taken back. ${at("said").textContent}`);
    }
  });
}

function changeMode() {
  desk.work(async () => {
    desk.mode = shown("grid") ? "single" : "grid";
    await desk.onward("");
  });
}

// Beside the picture where there is room, over it where there is none.
function toggleExamples() {
  const panel = at("examples");
  if (panel.open) panel.close();
  else if (WIDE.matches) panel.show();
  else panel.showModal();
  noteExamples();
}

function noteExamples() {
  const open = at("examples").open;
  for (const image of at("examples").querySelectorAll("img"))
    image.decode().then(() => enlarge(image, EXAMPLE_PX, EXAMPLE_PX), () => {});
  document.body.classList.toggle("beside", open && WIDE.matches);
  document.querySelector('[data-deed="examples"]').setAttribute("aria-expanded", String(open));
}

function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || shown("stopped")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const over = document.querySelector("dialog:modal");
  if (key === "Escape" && at("examples").open) return toggleExamples();
  if (!over && onArrow(key)) return event.preventDefault();
  if (event.repeat || (key.length === 1 && !at("letters").checked)) return;
  const deed = Object.keys(deeds).find((name) => desk.setup.keys[name].includes(key));
  if (!deed || (over && over.id !== deed)) return;
  event.preventDefault();
  deeds[deed]();
}

// In a zoomed picture and in the grid, arrows move. True: this one did.
function onArrow(key) {
  const x = { ArrowLeft: -1, ArrowRight: 1 }[key] ?? 0;
  const y = { ArrowUp: -1, ArrowDown: 1 }[key] ?? 0;
  if (!x && !y) return false;
  if (shown("single") && single.zoomed) single.pan(x, y);
  else if (shown("grid") && at("tiles").contains(document.activeElement)) grid.move(x, y);
  else return false;
  return true;
}

// Back from another tab: what was answered there is shown. Never in the way of a click or key that
// brought the rater here.
async function refresh() {
  const before = desk.state;
  if (document.hidden || !before || shown("stopped")) return;
  let state;
  try {
    state = await ask("/api/state");
  } catch (error) {
    return desk.complain(error.message, refresh);
  }
  // What was answered here meanwhile is newer than this reply.
  if (desk.busy || desk.state !== before || state.version === before.version) return;
  desk.take(state);
  if (shown("single")) single.refresh();
  if (shown("grid")) desk.work(() => grid.refresh());
}

document.addEventListener("keydown", onKey);
document.addEventListener("visibilitychange", refresh);
window.addEventListener("focus", refresh);
WIDE.addEventListener("change", () => at("examples").open && toggleExamples());
at("examples").addEventListener("close", noteExamples);
for (const button of document.querySelectorAll("[data-deed]"))
  button.addEventListener("click", () => deeds[button.dataset.deed]());
for (const button of document.querySelectorAll("[data-close]"))
  button.addEventListener("click", () => button.closest("dialog").close());
at("finish").addEventListener("click", () =>
  desk.work(async () => {
    const data = await ask("/api/finish", {});
    if (data.conflict) {
      desk.take(data);
      return desk.onward("Some pictures are not judged.");
    }
    at("tools").hidden = true;
    desk.reveal("stopped");
  }),
);

desk.work(async () => {
  desk.take(await ask("/api/state"));
  await desk.onward("");
});
