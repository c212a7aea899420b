"""How a running training shows itself: the few numbers of a record worth a glance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sri_cli.console import Progress


class TrainingProgress(Progress):
    """Tells of steps, records and notes."""

    def record(self, record: Mapping[str, Any]) -> None:
        """Show a log record."""
        self.tell(short(record))


def short(record: Mapping[str, Any]) -> str:
    """The few numbers worth a glance: error per element, KL, rate."""
    error = record.get("nll_per_element")
    parts = [] if error is None else [f"error {error:.4f}"]
    kls = [v for k, v in record.items() if k.startswith("kl/") and v is not None]
    parts += [f"KL {sum(kls):.1f}"] if kls else []
    return "  ".join([*parts, f"{record['images_per_second']:.1f} images/s"])
