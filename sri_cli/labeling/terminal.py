"""Judging in a terminal, over plain ssh: pictures as half-block colours, the keys of the page."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.text import Text

from sri_cli.console import duration
from sri_cli.errors import Interrupted, SriError, SriFailure
from sri_cli.labeling.blocks import fit, half_blocks
from sri_cli.labeling.keys import KEYS
from sri_cli.labeling.session import DEFINITION, VERDICTS, Session

DOES = {
    "plausible": "plausible",
    "implausible": "not",
    "unsure": "unsure",
    "undo": "undo",
    "back": "before",
    "forward": "after",
    "zoom": "zoom",
    "examples": "examples",
    "quit": "quit",
}
SIGNS = {"ArrowLeft": "←", "ArrowRight": "→"}
SENT = {b"\x7f": "Backspace", b"\x08": "Backspace", b"\x1b[D": "ArrowLeft", b"\x1b[C": "ArrowRight"}
SENT |= {b"\x1bOD": "ArrowLeft", b"\x1bOC": "ArrowRight", b"": "q"}  # b"": the terminal is gone
ROWS_FOR_ALL = 20  # a lower window shows no definition, but more of the picture
LOOK_AGAIN_SEC = 0.25  # for a window of another size


def check_terminal() -> Console:
    """SriError where there is no terminal, or one without colours."""
    console = Console()
    if not (sys.stdin.isatty() and console.is_terminal):
        raise SriError("--terminal: this is no terminal", "leave --terminal out: a web page")
    if console.color_system is None:
        raise SriError("--terminal: this terminal has no colours", "TERM=xterm-256color sri ...")
    return console


def label_in_terminal(session: Session) -> None:
    """Judge until `q`: Interrupted where pictures are left."""
    console = check_terminal()
    try:
        with single_keys(sys.stdin.fileno()), console.screen():
            Judging(session, console, sys.stdin.fileno()).run()
    except KeyboardInterrupt:
        pass
    left = session.verdicts().count(None)
    if left:
        raise Interrupted(
            f"{session.total - left} of {session.total} pictures are judged",
            "the same command goes on with the others",
        )


@contextmanager
def single_keys(terminal: int) -> Iterator[None]:
    """Keys come one by one and are not shown; the terminal is left as it was."""
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)


def read_key(terminal: int) -> str:
    """One key by its name in a browser; "q" where the terminal is gone."""
    try:
        sent = os.read(terminal, 64)
    except OSError:
        sent = b""
    return SENT.get(sent) or sent.decode(errors="replace").lower()


def action_of(key: str) -> str | None:
    """What a key does; several at once, as from a paste, do nothing."""
    return next((action for action, keys in KEYS.items() if key in keys), None)


class Judging:
    """What is on the screen, and what each key makes of it."""

    def __init__(self, session: Session, console: Console, terminal: int) -> None:
        self.session, self.console, self.terminal = session, console, terminal
        self.place = session.next_place() or 0
        self.example: int | None = None  # which is shown instead
        self.zoomed, self.note = False, ""
        self.seen: str | None = None
        self.since = time.monotonic()

    def run(self) -> None:
        """Until `q`, or the terminal is gone."""
        while True:
            self.draw()
            # What was typed before a picture was seen judges nothing.
            termios.tcflush(self.terminal, termios.TCIFLUSH)
            action = action_of(self.wait())
            if action == "quit":
                return
            self.note = ""
            self.do(action)

    def wait(self) -> str:
        """The next key; drawn anew when the window has another size."""
        size = self.console.size
        while not select.select([self.terminal], [], [], LOOK_AGAIN_SEC)[0]:
            if self.console.size != size:
                size = self.console.size
                self.draw()
        return read_key(self.terminal)

    def do(self, action: str | None) -> None:
        """One key."""
        step = {"back": -1, "forward": 1}.get(action or "", 0)
        if action == "zoom":
            self.zoomed = not self.zoomed
        elif self.example is not None:  # arrows leaf through them, all else leaves them
            last = len(self.session.examples()) - 1
            self.example = min(max(self.example + step, 0), last) if step else None
            self.since = time.monotonic()
        elif step:
            self.go(min(max(self.place + step, 0), self.session.total - 1))
        elif action == "examples":
            self.example = 0
        else:
            self.keep(action)

    def keep(self, action: str | None) -> None:
        """Answers and undoing. A refusal of the disk is told; the picture stays to try again."""
        try:
            if action in VERDICTS:
                self.answer(action)
            elif action == "undo":
                place = self.session.undo()
                self.note = "nothing to take back" if place is None else "taken back"
                self.go(self.place if place is None else place)
        except SriFailure as refused:
            self.note = f"NOT SAVED: {refused.message}"

    def answer(self, verdict: str) -> None:
        """On the disk before the next picture is drawn."""
        seconds = time.monotonic() - self.since
        if not self.session.answer(self.place, verdict, round(seconds, 2), self.seen):
            self.note = "judged elsewhere in the meantime: see below"
            return
        following = self.session.next_place()
        self.go(self.place if following is None else following)

    def go(self, place: int) -> None:
        """Another picture."""
        if place != self.place:
            self.place, self.since = place, time.monotonic()

    def draw(self) -> None:
        """The whole screen: a line, the picture, and what is asked, at the left edge."""
        if self.example is None:
            picture, above, below = self.session.picture(self.place), *self.words()
        else:
            picture, plausible, why = self.session.examples()[self.example]
            above = f"example {self.example + 1} of 6; arrows show others, e goes back"
            below = [f"{'plausible' if plausible else 'not plausible'}: {why}"]
        columns, rows = self.console.size
        below += [DEFINITION] * (rows >= ROWS_FOR_ALL) + [key_words()]
        height = 1 + sum(len(Text(line).wrap(self.console, columns)) for line in below)
        shown = fit(picture, columns, rows - height, self.zoomed)
        if shown.reduced:
            above += " (reduced)"
        lines = [Text(above, no_wrap=True), half_blocks(shown.picture), *map(Text, below)]
        self.console.update_screen(Group(*lines))

    def words(self) -> tuple[str, list[str]]:
        """How far the work is; what was said of this picture."""
        verdicts = self.session.verdicts()
        self.seen = verdicts[self.place]
        judged = self.session.total - verdicts.count(None)
        left = self.session.seconds_left()
        above = f"{self.place + 1} of {self.session.total}, {judged} judged"
        above += f", about {duration(left)} left" if left else ""
        verdict = {"implausible": "not plausible"}.get(self.seen or "", self.seen)
        below = f"you said: {verdict}" if verdict else "do all blocks touch?"
        done = "all is judged, thank you; q ends" if None not in verdicts else ""
        return above, ["   ".join(filter(None, [below, self.note, done]))]


def key_words() -> str:
    """y=plausible n=not u=unsure ...; no line ends between a key and its word."""
    return "  ".join(
        f"{SIGNS.get(KEYS[action][0], KEYS[action][0])}={does}" for action, does in DOES.items()
    )
