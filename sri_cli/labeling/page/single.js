// One picture at a time.

import { ask, enlarge, expect, picture } from "./talk.js";

const STEP_PX = 80; // by which an arrow key moves a zoomed picture

export class Single {
  constructor(desk) {
    this.desk = desk;
    this.section = document.getElementById("single");
    this.stage = document.getElementById("stage");
    this.caption = document.getElementById("caption");
    this.buttons = [...this.section.querySelectorAll("[data-verdict]")];
    this.place = null;
    this.seen = null; // the verdict that the page shows at `place`
    this.zoomed = false;
    for (const button of this.buttons)
      button.addEventListener("click", () => this.answer(button.dataset.verdict));
    new ResizeObserver(() => this.fit()).observe(this.stage);
  }

  // Show the picture at `place`; only when it is there does anything change.
  async show(place) {
    const { desk } = this;
    const image = await picture(place, desk.setup.total);
    this.place = place;
    this.image = image;
    this.stage.replaceChildren(image);
    this.zoom(false);
    this.render();
    this.since = performance.now();
    desk.reveal("single");
    this.fit();
    desk.say(`Picture ${place + 1} of ${desk.setup.total}${this.answered()}.`);
    expect(desk.unanswered().filter((other) => other !== place).slice(0, 2), desk.setup.total);
  }

  render() {
    const { desk, place } = this;
    this.seen = desk.state.verdicts[place];
    this.caption.textContent = `Picture ${place + 1}${this.answered()}`;
    for (const button of this.buttons)
      button.setAttribute("aria-pressed", String(button.dataset.verdict === this.seen));
  }

  answered() {
    return this.seen ? `, your answer: ${this.desk.words[this.seen].toLowerCase()}` : "";
  }

  // Another tab may have answered meanwhile: the picture stays, its answer is shown.
  refresh() {
    const before = this.seen;
    this.render();
    if (this.seen !== before) this.desk.complain(this.changed());
  }

  changed() {
    const now = this.seen ? `the answer is now: ${this.desk.words[this.seen].toLowerCase()}` : "there is no answer now";
    return `Picture ${this.place + 1} was changed in another tab; ${now}. Answer again to change it, or go on with →.`;
  }

  answer(verdict) {
    const { desk, place, seen } = this;
    const seconds = Math.min((performance.now() - this.since) / 1000, 86400);
    return desk.work(async () => {
      const answers = [{ place, verdict, expected: seen }];
      const data = await ask("/api/answers", { answers, seconds });
      desk.take(data);
      if (data.conflict) {
        this.render();
        desk.complain(this.changed());
        return;
      }
      await desk.onward(`Saved: ${desk.words[verdict].toLowerCase()}.`);
    });
  }

  // Look back (-1) or forth (1), not beyond the first picture without an answer.
  look(step) {
    const { desk } = this;
    const next = desk.state.next ?? desk.setup.total;
    const from = this.section.hidden ? desk.setup.total : this.place;
    const place = from + step;
    if (place < 0 || place > next) return;
    desk.work(() => (place === desk.setup.total ? desk.onward("") : this.show(place)));
  }

  zoom(on = !this.zoomed) {
    this.zoomed = on;
    this.desk.press("zoom", on);
    this.stage.classList.toggle("zoomed", on);
    this.stage.tabIndex = on ? 0 : -1; // what scrolls can be reached by keyboard
    this.fit();
    this.stage.scrollTo(
      (this.stage.scrollWidth - this.stage.clientWidth) / 2,
      (this.stage.scrollHeight - this.stage.clientHeight) / 2,
    );
  }

  // Move a zoomed picture by `x`, `y` steps.
  pan(x, y) {
    this.stage.scrollBy(x * STEP_PX, y * STEP_PX);
  }

  fit() {
    if (this.image && this.stage.clientWidth)
      enlarge(this.image, this.stage.clientWidth, this.stage.clientHeight, this.zoomed ? 2 : 1);
  }
}
