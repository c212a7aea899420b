"""Lines of a metrics.jsonl, and the tables made of them."""

from __future__ import annotations

from typing import Any

from sri_cli.metrics.tables import paper_tables
from sri_cli.metrics.tabular import format_tables

BITS = ("bits_per_dimension", "bits/dim")
ARI = ("ari_fg", "ARI-FG")
TINY = {"image_size": 32, "source": "simulated"}


def measured(
    metric: str,
    name: str,
    value: float | None,
    split: str = "test",
    interval: tuple[float, float] | None = None,
    data: dict[str, Any] | None = None,
    **subject: Any,
) -> dict[str, Any]:
    """A line of a metrics.jsonl: of a run of sri-g on ShapeStacks, except for what is given."""
    low, high = interval or (None, None)
    seed = subject.get("training_seed", 0)
    return {
        "schema": 1,
        "metric": metric,
        "name": name,
        "value": value,
        "low": low,
        "high": high,
        "interval": "95 % normal over images" if interval else None,
        "counts": {"images": 320, "without_foreground": 0},
        "subject": {
            "kind": "run",
            "run": f"runs/x{seed}",
            "recipe": "sri-g",
            "size": None,
            "training_seed": seed,
            "step": 500_000,
            "checkpoint": "step-000500000",
            "model": f"weights of {sorted(subject.items())}",
        }
        | subject,
        "data": {
            "name": "shapestacks",
            "image_size": 64,
            "source": "original",
            "sha256": "c0ffee1234",
            "split": split,
        }
        | (data or {}),
        "seed": 0,
        "slots": 9,
        "temperature": 1.0,
        "protocol": "some protocol",
        "warning": None,
    }


def printed(measurements: list[dict[str, Any]], style: str = "text") -> str:
    """The paper's tables with these measurements."""
    return format_tables(paper_tables(measurements), style)
