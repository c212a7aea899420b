"""What each key does: written once, for the page and for the terminal."""

from __future__ import annotations

# Action -> keys, named as in a browser's KeyboardEvent.key; letters count in either case.
# The page has no "quit" (a tab is closed), the terminal no "grid".
KEYS: dict[str, list[str]] = {
    "plausible": ["y"],
    "implausible": ["n"],
    "unsure": ["u"],
    "undo": ["b", "Backspace"],
    "back": ["ArrowLeft"],
    "forward": ["ArrowRight"],
    "zoom": ["z"],
    "grid": ["g"],
    "examples": ["e"],
    "help": ["?"],
    "quit": ["q"],
}
