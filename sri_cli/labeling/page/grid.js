// Twenty pictures at a time, all plausible until flipped, saved together.

import { ask, enlarge, expect, picture } from "./talk.js";

const TURN = { plausible: "implausible", implausible: "unsure", unsure: "plausible" };
const LEAST_PX = 150; // of a picture, where there is room for several: a gap must be seen
const FRAME_PX = 8; // of a tile, both sides
const GAP_PX = 8;
const MOST_COLUMNS = 7; // twenty in three rows

export class Grid {
  constructor(desk) {
    this.desk = desk;
    this.section = document.getElementById("grid");
    this.tiles = document.getElementById("tiles");
    this.save = document.getElementById("save");
    this.words = document.getElementById("grid-words");
    this.flips = new Map(); // place -> verdict; kept when the mode changes and after undo
    this.last = { version: null, count: 0 }; // what was saved last, for undo
    this.save.addEventListener("click", () => this.submit());
    this.tiles.addEventListener("click", (event) => this.flip(event.target.closest(".tile")));
    this.tiles.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.fit()).observe(this.section);
  }

  // Show the first pictures without an answer.
  async show() {
    const { desk } = this;
    const left = desk.unanswered();
    const places = left.slice(0, desk.setup.atOnce);
    const images = await Promise.all(places.map((place) => picture(place, desk.setup.total)));
    this.places = places;
    this.tiles.replaceChildren(...places.map((place, k) => this.tile(place, images[k])));
    this.words.textContent =
      "All count as plausible until you press them: once for not plausible, twice for unsure, a third time for plausible again.";
    this.save.textContent = places.length === 1 ? "Save this one" : `Save these ${places.length}`;
    this.since = performance.now();
    desk.reveal("grid");
    this.fit();
    window.scrollTo(0, 0);
    this.tiles.firstElementChild.focus({ preventScroll: true });
    desk.say(`${places.length} pictures, ${places[0] + 1} to ${places.at(-1) + 1}.`);
    expect(left.slice(places.length, places.length + desk.setup.atOnce), desk.setup.total);
  }

  tile(place, image) {
    const tile = document.createElement("button");
    tile.type = "button";
    tile.className = "tile";
    tile.tabIndex = place === this.places[0] ? 0 : -1;
    const mark = document.createElement("span");
    mark.className = "verdict";
    tile.append(image, mark);
    tile.dataset.place = place;
    this.mark(tile, this.flips.get(place) ?? "plausible");
    return tile;
  }

  mark(tile, verdict) {
    const place = Number(tile.dataset.place);
    const words = this.desk.words[verdict];
    tile.dataset.verdict = verdict;
    tile.querySelector(".verdict").textContent = `${this.desk.marks[verdict]} ${words}`;
    tile.setAttribute("aria-label", `Picture ${place + 1}: ${words.toLowerCase()}`);
  }

  flip(tile, verdict = tile && TURN[tile.dataset.verdict]) {
    if (!tile || this.desk.busy) return;
    this.flips.set(Number(tile.dataset.place), verdict);
    this.mark(tile, verdict);
    this.desk.say(tile.getAttribute("aria-label"));
  }

  // An answer key judges the picture that has the focus.
  judge(verdict) {
    const tile = document.activeElement.closest(".tile");
    if (!tile) return;
    this.flip(tile, verdict);
    this.move(1);
  }

  key(event) {
    if (event.key !== "Enter" || event.repeat) return;
    event.preventDefault(); // of a button that would be a click
    this.submit();
  }

  // Move the focus by so many pictures; "row" steps move by a row.
  move(step, rows = 0) {
    const tiles = [...this.tiles.children];
    const here = tiles.indexOf(document.activeElement);
    const to = tiles[here + step + rows * this.columns];
    if (here < 0 || !to) return;
    tiles[here].tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  }

  refresh() {
    const gone = this.places.filter((place) => this.desk.state.verdicts[place] !== null);
    if (!gone.length) return undefined;
    const words = `${gone.length} of these pictures were answered in another tab.`;
    return this.desk.onward(words).then(() => this.desk.complain(words));
  }

  submit() {
    const { desk, places } = this;
    const seconds = Math.min((performance.now() - this.since) / 1000 / places.length, 86400);
    const answers = places.map((place) => ({
      place,
      verdict: this.flips.get(place) ?? "plausible",
      expected: null,
    }));
    return desk.work(async () => {
      const data = await ask("/api/answers", { answers, seconds });
      desk.take(data);
      const kept = places.length - data.stale.length;
      this.last = data.conflict ? { count: 0 } : { version: data.version, count: kept };
      await desk.onward(`Saved: ${kept} pictures.`);
      if (data.conflict)
        desk.complain(
          `${data.stale.length} of ${places.length} pictures had been answered otherwise in another tab; those answers stand. The other ${kept} are saved. Look back to change one.`,
        );
    });
  }

  // How many answers "undo" takes back: the last batch, if nothing came after it.
  undoes() {
    return this.last.count && this.last.version === this.desk.state.version ? this.last.count : 1;
  }

  fit() {
    const width = this.tiles.clientWidth;
    if (!width) return;
    const images = [...this.tiles.querySelectorAll("img")];
    const side = images[0].naturalWidth;
    const wanted = side * Math.ceil(LEAST_PX / side) + FRAME_PX;
    const fit = Math.floor((width + GAP_PX) / (wanted + GAP_PX));
    this.columns = Math.max(2, Math.min(MOST_COLUMNS, fit));
    this.tiles.dataset.columns = this.columns;
    const inside = (width + GAP_PX) / this.columns - GAP_PX - FRAME_PX;
    for (const image of images) enlarge(image, inside, inside);
  }
}
