"""The report of `sri bench gpu-suite`, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sri_cli.benchmarks.timing import digits
from sri_cli.metrics.tabular import markdown_table, markdown_text

Record = Mapping[str, Any]
MAIN_STEPS = 500_000  # of the paper's SRI-MoG
STEP_HEAD = (
    "way",
    "ms a step, median",
    "min",
    "max",
    "steps/s",
    "images/s",
    "% of peak",
    "memory MB",
    "ready after s",
)


def suite_report(records: Sequence[Record]) -> str:
    """Of all parts so far: a section for each kind, and what went wrong."""
    done = {r["part"]: r["result"] for r in records if r["status"] == "done"}
    parts = [
        "# sri bench gpu-suite",
        *environment_lines(done.get("environment")),
        *steps_section(done),
        *sampling_section(done.get("sampling")),
        *data_section(done.get("data")),
        *profile_section(done.get("profile")),
        *recipes_section(done),
        *tests_section(done.get("tests")),
        *others_section(records),
        fastest_words(records),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def environment_lines(found: Record | None) -> list[str]:
    """The machine."""
    if found is None:
        return []
    gpu = found.get("nvidia_smi") or {}
    lines = [
        f"{found['machine']}, {found['cores']} CPU cores, torch {found['torch']},"
        f" Python {found['python']}, sri {found['sri']}",
    ]
    if "cuda" in found:
        lines.append(
            f"CUDA {found['cuda']}, cuDNN {found['cudnn']}, driver"
            f" {gpu.get('driver_version', 'unknown')}, {found['gpu_memory_gb']:.0f} GB of GPU"
            f" memory, {found['gpus']} GPU"
        )
    return [markdown_text(line) for line in lines]


def steps_section(done: Mapping[str, Any]) -> list[str]:
    """Every way of the main recipe's step."""
    rows = [step_row(name, found) for name, found in done.items() if name.startswith("step ")]
    if not rows:
        return []
    first = next(found for name, found in done.items() if name.startswith("step "))
    what = (
        f"{first['recipe']}, {first['image_size']} px, {first['slots']} slots, batch"
        f" {first['batch']}: {digits(first['gflop_per_step'])} GFLOP"
    )
    peaks = {
        found["dtype"]: f"{found['dtype']} {digits(found['peak_flop_per_second'] / 1e12)} TFLOP/s"
        for name, found in done.items()
        if name.startswith("step ")
    }
    text = f"{what}. Measured peak: {', '.join(peaks.values())}."
    return ["## Training step", text, markdown_table([list(STEP_HEAD), *rows])]


def step_row(name: str, found: Record) -> list[str]:
    """One way."""
    seconds = [found[f"seconds_{key}"] for key in ("per_step", "min", "max")]
    share = found.get("share_of_peak")
    return [
        name.removeprefix("step "),
        *(digits(1000 * s) for s in seconds),
        digits(1 / seconds[0]),
        digits(found["images_per_second"]),
        "" if share is None else f"{share:.1%}",
        digits(round(found["memory_mb"])),
        digits(found["warm_up_seconds"]),
    ]


def sampling_section(found: Record | None) -> list[str]:
    """Scenes a second."""
    if found is None:
        return []
    return [
        "## Sampling",
        f"{found['num']:,} scenes of {found['slots']} slots in {found['dtype']}:"
        f" {digits(found['images_per_second'])} a second ({digits(found['images_per_second_min'])}"
        f" to {digits(found['images_per_second_max'])}); 10,000 scenes in"
        f" {digits(found['seconds_for_10000'])} s; {digits(round(found['memory_mb']))} MB",
    ]


def data_section(found: Record | None) -> list[str]:
    """Batches a second from everywhere."""
    if found is None:
        return []
    head = ["", "a second, median", "ms, median", "min", "max"]
    rows = [
        [
            row["what"],
            f"{digits(row['per_second'])} {row['unit']}",
            *(
                digits(1000 * row[f"seconds_{key}"] / row["number"])
                for key in ("median", "min", "max")
            ),
        ]
        for row in found["rows"]
    ]
    return ["## Data", markdown_table([head, *rows])]


def profile_section(found: Record | None) -> list[str]:
    """The dearest operations."""
    if found is None:
        return []
    head = ["operation", "ms", "calls", "% of the time"]
    rows = [
        [o["name"][:100], digits(1000 * o["seconds"]), f"{o['calls']:,}", f"{o['share']:.1%}"]
        for o in found["operations"]
    ]
    return ["## Most expensive operations of an eager step", markdown_table([head, *rows])]


def recipes_section(done: Mapping[str, Any]) -> list[str]:
    """Every other recipe."""
    found = {name: r for name, r in done.items() if name.startswith("recipe ")}
    if not found:
        return []
    head = ["recipe", "steps", "finite", "ms a step", "images/s", "memory MB", "way"]
    rows = [
        [
            r["recipe"],
            str(r["steps"]),
            "no" if r["loss"] is None or r["skipped"] else "yes",
            digits(1000 * r["seconds_per_step"]),
            digits(r["images_per_second"]),
            digits(round(r["memory_mb"])),
            f"{r['dtype']} {r['way']}",
        ]
        for r in found.values()
    ]
    return ["## Recipes", markdown_table([head, *rows])]


def tests_section(found: Record | None) -> list[str]:
    """What pytest said last."""
    return [] if found is None else ["## Tests", markdown_text(found["said"])]


def others_section(records: Sequence[Record]) -> list[str]:
    """What did not end well."""
    rows = [
        [r["part"], r["status"], f"{r['seconds']:.0f}", r["error"][-300:]]
        for r in records
        if r["status"] != "done"
    ]
    if not rows:
        return []
    return ["## Not measured", markdown_table([["part", "", "s", "why"], *rows], words=4)]


def fastest(records: Sequence[Record]) -> Record | None:
    """The record of the step that took least; None where none was measured."""
    steps = [r for r in records if r["status"] == "done" and r["part"].startswith("step ")]
    return min(steps, key=lambda r: r["result"]["seconds_per_step"], default=None)


def fastest_words(records: Sequence[Record]) -> str:
    """What `train.precision` and `train.compile` should come to by themselves."""
    best = fastest(records)
    if best is None:
        return "fastest: not known, no step was measured"
    result = best["result"]
    seconds = result["seconds_per_step"]
    whole = f"{MAIN_STEPS:,} steps in {digits(MAIN_STEPS * seconds / 3600)} h"
    return (
        f"fastest: {best['part'].removeprefix('step ')}, {digits(1 / seconds)} steps/s on"
        f" {result['machine']}" + (f" ({whole})" if result["size"] == "paper" else " (tiny)")
    )
