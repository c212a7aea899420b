"""How a running study shows itself: which run, of how many, and how long all of them will take."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import mean, median

from sri_cli.console import Progress, duration
from sri_cli.studies.file import Cell
from sri_cli.studies.jobs import Ended
from sri_cli.studies.runs import records_of

READ_LOGS_EVERY_SEC = 2.0


class StudyProgress(Progress):
    """Counts the steps of all runs; the time left is each system's own time a step.

    `cells` are the study's runs, `steps` how far each is, by name; `jobs` run at once.
    """

    def __init__(self, cells: Sequence[Cell], steps: Mapping[str, int], jobs: int) -> None:
        self.cells, self.jobs = cells, jobs
        self.steps = dict(steps)
        self.number = {cell.name: i for i, cell in enumerate(cells, 1)}
        self.looked = 0.0
        self.pace: dict[str, float] = {}
        total = sum(cell.recipe.train.steps for cell in cells)
        super().__init__(total, sum(self.steps.values()), "study")

    def begins(self, cell: Cell) -> None:
        """A run is started or taken up."""
        at = self.steps[cell.name]
        self.note(f"{self._which(cell)} begins" + f" at step {at:,}" * bool(at))

    def ends(self, end: Ended, words: str) -> None:
        """A run came to an end, good or bad."""
        self.note(f"{self._which(end.cell)} {words}")

    def look(self, running: Sequence[Cell]) -> None:
        """How far the runs in progress are, by their logs."""
        if time.monotonic() - self.looked < READ_LOGS_EVERY_SEC:
            return
        self.looked = time.monotonic()
        for cell in running:
            records = records_of(cell.run_dir)
            if records:
                self.steps[cell.name] = records[-1]["step"]
                rates = [r["images_per_second"] for r in records[-20:] if r["images_per_second"]]
                if rates:
                    self.pace[cell.system] = cell.recipe.train.batch / median(rates)
        self.advance(sum(self.steps.values()))
        if running and self.done > self.first:
            self.tell("; ".join(self._stand(cell) for cell in running))

    def seconds_left(self) -> float | None:
        """Of the training that is left, at the pace of each system; None: nothing is known yet."""
        if not self.pace:
            return None
        usual = mean(self.pace.values())
        left = [
            (cell.recipe.train.steps - self.steps[cell.name]) * self.pace.get(cell.system, usual)
            for cell in self.cells
        ]
        return sum(left) / self.jobs

    def _stand(self, cell: Cell) -> str:
        at, steps = self.steps[cell.name], cell.recipe.train.steps
        if at >= steps:
            return f"{self._which(cell)} is being measured"
        pace = self.pace.get(cell.system)
        each = f", {pace:.2g} s each" if pace else ""
        return f"{self._which(cell)} at step {at:,} of {steps:,}{each}"

    def _which(self, cell: Cell) -> str:
        return f"[{self.number[cell.name]}/{len(self.cells)}] {cell.words}"

    def _eta(self) -> str:
        left = self.seconds_left()
        return f"about {duration(left)} left" if left else ""
