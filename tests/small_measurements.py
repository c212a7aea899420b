"""Lines of a metrics.jsonl, and the paper's tables made of them."""

from __future__ import annotations

from typing import Any

from sri_cli.metrics.tables import format_paper_tables, paper_tables

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
    counts: dict[str, int] | None = None,
    warning: str | None = None,
    **subject: Any,
) -> dict[str, Any]:
    """A line of a metrics.jsonl: of a run of sri-g on ShapeStacks, but for what is given."""
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
        "counts": counts or {"images": 320, "without_foreground": 0},
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
        "protocol": None,
        "warning": warning,
    }


def pictures(folder: str) -> dict[str, Any]:
    """FID of another tool's pictures."""
    return {
        "metric": "fid",
        "name": "FID-2k",
        "value": 44,
        "counts": {"real": 2000, "generated": 2000},
        "subject": {"kind": "images", "images": folder, "count": 2000},
        "data": {"name": "my_set", "image_size": 64, "source": "folder", "split": "test"},
    }


def printed(measurements: list[dict[str, Any]], style: str = "text") -> str:
    return format_paper_tables(paper_tables(measurements), style)


FID_COUNTS = {"real": 10_000, "generated": 10_000}
ONE = [
    measured(*BITS, 0.8312, "val", interval=(0.8301, 0.8323)),
    measured("fid", "FID-val", 81.04, "val", counts=FID_COUNTS),
]
