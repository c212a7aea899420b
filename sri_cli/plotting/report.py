"""`sri report`: one HTML page about one or several runs.

The page shows earlier measurements and what the newest checkpoints draw. It measures nothing; for
what is missing it gives the command. It is one file without scripts: style and images are embedded,
and nothing is loaded.

The template `report.html` renders plain data. A page has `title`, `lead` and `sections`; a
section has a `title` and any of
    text, notes     a paragraph, and smaller ones below
    facts           pairs of name and value
    figures         see `image_figure`
    tables          header, rows and caption; the first column names the row
    code, folded    code, and the label that unfolds it
    parts           subsections

Axis legend: N images, K slots, H W pixels.
"""

from __future__ import annotations

import base64
import hashlib
import io
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment
from PIL import Image

from sri_cli.atomic import list_folder, write_atomic
from sri_cli.config.load import recipe_to_yaml
from sri_cli.data.dataset import DataFile
from sri_cli.data.summary import counts_text, masked_splits, parameters_text
from sri_cli.errors import SriError
from sri_cli.generation.encode import encode_split
from sri_cli.generation.sample import draw_scenes
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.metrics.records import Measurement, largest, read_records, recorded, run_subject
from sri_cli.metrics.tables import DOUBTFUL, footnotes, table_rows
from sri_cli.plotting.blocks import (
    TrainingLog,
    contact_panel,
    grid_panel,
    order_panel,
    reconstruction_panel,
    training_charts,
    training_log,
)
from sri_cli.plotting.figures import Block, Chart, check_file, draw, figure_bytes
from sri_cli.plotting.outputs import FIGURES, check_place, output_path, record_of
from sri_cli.plotting.report_commands import is_newest, repeat_commands
from sri_cli.run import Workspace, run_argument
from sri_cli.runs import differing, settings_of
from sri_cli.strict_json import from_json

NAME = "report.html"
TEMPERATURES = (0.7, 1.0)
SAMPLES, SAMPLE_COLUMNS, ORDER_SCENES, TEST_IMAGES = 32, 4, 6, 8
DATA_IMAGES, DATA_COLUMNS = 12, 6
FEW_RUNS = 2  # with more, half as many scenes of each
TITLE_RUNS = 3
FILMS, FILM_BYTES = 3, 3_000_000  # of the walks in a run's folder, inside the page
PNG_SCALE = 2.0  # pixels per point: sharp on a phone
LIKELIHOODS = {"mog": "mixture of Gaussians", "gaussian": "Gaussian"}

Section = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A run of the report. `name` is unique; `data` is its data file, or why there is none."""

    name: str
    trained: TrainedRun
    data: DataFile | SriError

    @cached_property
    def log(self) -> TrainingLog:
        return training_log(self.trained, self.name)

    @cached_property
    def measured(self) -> list[Measurement]:
        """The measurement of the largest sample of each kind of this checkpoint."""
        return largest(recorded(self.trained))


def report_of_runs(workspace: Workspace, runs: Sequence[str], out: Path | None = None) -> Path:
    """Write the page of runs (none: the latest) to `out`, and return its path.

    `out` is by default report-NNN.html in the run's folder, or in the current one for several runs.

    Raises:
        SriError: for a run without an intact checkpoint, or an `out` that cannot be a page;
            nothing has been drawn then.
    """
    check_file(out, (".html", ".htm"))
    for run in runs:
        workspace.find_run(run)  # misspelt names are reported before any model is loaded
    opened = [open_run(workspace, run) for run in runs or (None,)]
    unique = {(one.run_dir.resolve(), one.step): one for one in opened}
    subjects = make_subjects(list(unique.values()))
    folder = subjects[0].trained.run_dir if len(subjects) == 1 else Path()
    check_place(out, folder)
    record = record_of([one.trained for one in subjects], "report")
    with output_path(out, folder, "report", ".html", record) as path:
        return write_report(workspace, subjects, path)


def make_subjects(runs: Sequence[TrainedRun]) -> list[Subject]:
    """Runs with unique names (their folders, or as much more as is needed) and data files."""
    subjects = []
    for one in runs:
        same_name = [other for other in runs if other.run_dir.name == one.run_dir.name]
        name = one.run_dir.name if len(same_name) == 1 else str(one.run_dir)
        if sum(other.run_dir.resolve() == one.run_dir.resolve() for other in runs) > 1:
            name += f", step {one.step:,}"
        try:
            data: DataFile | SriError = one.open_data()
        except SriError as error:
            data = error
        subjects.append(Subject(name, one, data))
    return subjects


def write_report(
    workspace: Workspace, subjects: Sequence[Subject], path: Path, comparison: Section | None = None
) -> Path:
    """Write the page to `path`, completely or not at all.

    `comparison` comes after the images that the runs generate.
    """
    names = [one.name for one in subjects[:TITLE_RUNS]]
    if len(subjects) > TITLE_RUNS:
        names.append(f"{len(subjects) - TITLE_RUNS} more")
    captions = list(dict.fromkeys(one.trained.caption for one in subjects))
    what = f"{len(subjects)} runs" if len(subjects) > 1 else "A run"
    runs = [(one.trained, one.measured) for one in subjects]
    page = {
        "title": ", ".join(names),
        "lead": f"{what} trained on {' and on '.join(captions)}. All scenes are drawn from the"
        + (
            " newest checkpoint."
            if all(is_newest(one.trained) for one in subjects)
            else " checkpoints that the commands below name."
        ),
        "sections": [
            of_each(subjects, "Samples", samples, SAMPLES_TEXT),
            of_each(subjects, "The order of slots", order, ORDER_TEXT),
            *([comparison] if comparison else []),
            overview(subjects),
            *([differences(subjects)] if len(subjects) > 1 else []),
            measurements(subjects),
            of_each(subjects, "Test images", reconstructions),
            of_each(subjects, "Latent walks", walks),
            training(subjects),
            data_section(subjects),
            recipes(subjects),
            {
                "title": "Commands",
                "text": "The commands that made what is shown here, from the data on.",
                "code": "\n".join(repeat_commands(workspace, runs)),
            },
        ],
    }
    write_atomic(path, render(page))
    return path


def render(page: dict[str, Any]) -> bytes:
    """The page as HTML; every text is escaped, and only the page's own style is allowed."""
    folder = files("sri_cli.plotting")
    style = folder.joinpath("report.css").read_text("utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(f"\n{style}\n".encode()).digest()).decode()
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(folder.joinpath("report.html").read_text("utf-8"))
    text = template.render(page=page, style=style, digest=digest)
    return text.encode("utf-8", "replace")  # names of files may not be valid text


def of_each(
    subjects: Sequence[Subject],
    title: str,
    make: Callable[[Subject, bool], Section],
    text: str = "",
) -> Section:
    """The section that `make` gives for a single run, or one with a part for each run."""
    parts = []
    for one in subjects:
        try:
            parts.append(make(one, len(subjects) > FEW_RUNS))
        except SriError as error:
            parts.append(not_shown(error))
    if len(parts) == 1:
        text = " ".join(filter(None, [text, parts[0].get("text", "")]))
        return {**parts[0], "title": title, "text": text}
    parts = [{"title": one.name, **part} for one, part in zip(subjects, parts, strict=True)]
    return {"title": title, "text": text, "parts": parts}


def image_figure(block: Block, caption: str, alt: str, captions: bool = False) -> dict[str, Any]:
    """A figure: `source`, `width` and `height` in px, `caption`, and `alt` for screen readers."""
    png = figure_bytes(draw([[block]], scale=PNG_SCALE, captions=captions))
    with Image.open(io.BytesIO(png)) as image:
        width, height = (round(side / PNG_SCALE) for side in image.size)
    source = data_uri(png, "png")
    return {"source": source, "width": width, "height": height, "caption": caption, "alt": alt}


def data_uri(content: bytes, kind: str) -> str:
    """An image inside the page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def run_table(
    subjects: Sequence[Subject], rows: Sequence[Sequence[str]], caption: str = ""
) -> dict[str, Any]:
    """A table with a column for each run."""
    return {"header": ["", *(one.name for one in subjects)], "rows": rows, "caption": caption}


def not_shown(error: SriError) -> Section:
    """A section for something that cannot be shown, and the fix."""
    return {"text": f"Not shown: {error.message}.", "notes": [error.hint] if error.hint else []}


# Runs, measurements and training


def overview(subjects: Sequence[Subject]) -> Section:
    """What each run is."""
    facts = [run_facts(one) for one in subjects]
    if len(subjects) == 1:
        return {"title": "The run", "facts": list(facts[0].items())}
    rows = [[name, *(own[name] for own in facts)] for name in facts[0]]
    return {"title": "The runs", "tables": [run_table(subjects, rows)]}


def run_facts(one: Subject) -> dict[str, str]:
    """The most important settings of a run."""
    trained = one.trained
    recipe, records = trained.recipe, one.log.records
    time = records[-1].get("time") if records else None
    size = "" if recipe.size == "paper" else f", size {recipe.size}"
    return {
        "recipe": f"{recipe.name}{size}",
        "description": recipe.description,
        "trained on": f"{trained.caption}, {recipe.model.image_size} px",
        "training steps": f"{trained.step:,} of {recipe.train.steps:,}",
        "batch": f"{recipe.train.batch:,} images",
        "slots": str(trained.model.num_slots),
        "likelihood": f"{LIKELIHOODS[recipe.model.likelihood]}, std {recipe.model.std:g}",
        "parameters": f"{sum(p.numel() for p in trained.model.parameters()):,}",
        "training seed": str(recipe.train.seed),
        "last log record": f"{time[:10]} {time[11:16]} UTC" if isinstance(time, str) else "none",
        "weights (SHA-256)": run_subject(trained)["model"][:16],
    }


def differences(subjects: Sequence[Subject]) -> Section:
    """Where recipes and data of several runs differ; a dash where a setting has no effect."""
    settings = [
        settings_of(run.run_dir, run.recipe.model_dump(mode="json"), run.extra)
        for run in (one.trained for one in subjects)
    ]
    rows = [[key, *values] for key, values in differing(settings).items()]
    keys = {key for own in settings for key in own}
    return {
        "title": "Differences between the recipes",
        "text": f"{len(keys) - len(rows)} of {len(keys)} settings are the same."
        if rows
        else "There are none.",
        "tables": [run_table(subjects, rows)] if rows else [],
    }


def measurements(subjects: Sequence[Subject]) -> Section:
    """What is recorded of these checkpoints, with intervals, and how it was measured."""
    section: Section = {"title": "Measurements", "notes": []}
    for one in subjects:
        if not one.measured:
            earlier = len(read_records(one.trained.run_dir))
            others = f" ({earlier} of other checkpoints)" if earlier else ""
            newest = is_newest(one.trained)
            run = one.trained.run_dir if newest else one.trained.checkpoint
            command = shlex.join(["sri", "eval", "--run", run_argument(run)])
            section["notes"].append(
                f"{one.name}: no measurements of this checkpoint{others}; run {command}"
            )
    records = [
        {**record, "subject": {**record["subject"], "run": one.name}}
        for one in subjects
        for record in one.measured
    ]
    if records:
        _, *rows = table_rows(records)
        section["text"] = "Read from metrics.jsonl; nothing is measured for this page."
        measured = [one for one in subjects if one.measured]
        section["tables"] = [run_table(measured, rows, "Values with 95 % intervals")]
        lines = footnotes(records)  # indented below the split that they are about
        section["notes"] += [
            line.strip() if line.startswith((" ", DOUBTFUL)) else f"{line}:" for line in lines
        ]
    return section


def training(subjects: Sequence[Subject]) -> Section:
    """Errors, KLs and their weights over the steps."""
    logs = [one.log for one in subjects if one.log.records]
    notes = [f"{one.name} has no training log." for one in subjects if not one.log.records]
    if not logs:
        return {"title": "Training", "notes": notes}
    legend, charts = training_charts(logs)
    figures = [image_figure(legend, "", "Legend") | {"alone": True}] if len(logs) > 1 else []
    figures += [image_figure(chart, "", chart_text(chart), True) for chart in charts]
    text = (
        "GECO holds the error at its target (dashed) while the KL falls; each objective has its own"
        " weight."
    )
    return {"title": "Training", "text": text, "figures": figures, "notes": notes}


def chart_text(chart: Chart) -> str:
    """The chart in words: the first and last value of each line."""
    lines = []
    for name, line in chart.lines.items():
        known = [(step, value) for step, value in line if value is not None]
        ends = [f"{value:.4g} at step {step:,}" for step, value in known[:1] + known[1:][-1:]]
        lines.append(f"{name}: {' to '.join(ends) or 'no values'}")
    return f"{chart.caption}. {'; '.join(lines)}."


def recipes(subjects: Sequence[Subject]) -> Section:
    """Every setting of every run."""
    yaml = [recipe_to_yaml(one.trained.recipe) for one in subjects]
    if len(yaml) == 1:
        return {"title": "Recipe", "code": yaml[0]}
    parts = [
        {"title": one.name, "code": code, "folded": "All settings"}
        for one, code in zip(subjects, yaml, strict=True)
    ]
    return {"title": "Recipes", "parts": parts}


# Images

SAMPLES_TEXT = (
    "Scenes that the model generates slot by slot, with as many slots as in training. The"
    " temperature scales the noise; measurements are at temperature 1. Both temperatures have the"
    " same noise, and no image was selected."
)
ORDER_TEXT = "A model has learned an order if a slot draws the same kind of thing in every scene."


def samples(one: Subject, many: bool) -> Section:
    """New scenes at two temperatures, and test images to compare them with."""
    num, model = SAMPLES // 2 if many else SAMPLES, one.trained.model
    figures = []
    for temperature in TEMPERATURES:
        images = draw_scenes(model, num, model.num_slots, temperature, seed=0).images
        what = f"{num} scenes at temperature {temperature:g}, seed 0"
        panel = grid_panel(images, columns=SAMPLE_COLUMNS)
        figures.append(image_figure(panel, what, f"{what}, generated by {one.name}"))
    if isinstance(one.data, DataFile):
        figures[1:1] = real_images(one.data, num)
    return {"figures": figures}


def real_images(data: DataFile, num: int) -> list[dict[str, Any]]:
    """A grid of test images; none where they are damaged, which the section on data says."""
    try:
        split = data.split("test")
        images = split.images[split.pick(num)]
    except SriError:
        return []
    what = f"{len(images)} real images of the test split"
    panel = grid_panel(images, columns=SAMPLE_COLUMNS)
    return [image_figure(panel, what, f"{what} of {data.caption}")]


def order(one: Subject, many: bool) -> Section:
    """Scenes and the contributions of their slots."""
    num, model = ORDER_SCENES // 2 if many else ORDER_SCENES, one.trained.model
    panel = order_panel(draw_scenes(model, num, model.num_slots, temperature=1.0, seed=0))
    caption = f"{num} scenes with their masks and what each of {model.num_slots} slots adds"
    return {"figures": [image_figure(panel, caption, f"{caption}, of {one.name}", True)]}


def reconstructions(one: Subject, _: bool) -> Section:
    """Test images, their reconstructions, and rollouts where the model has a scene variable."""
    if isinstance(one.data, SriError):
        return not_shown(one.data)
    inputs, made = encode_split(one.trained.model, one.data, num=TEST_IMAGES, rollout=True)[1:]
    panel = reconstruction_panel(inputs, made)
    caption = f"{len(inputs)} images of the test split of {one.data.caption}"
    section: Section = {"figures": [image_figure(panel, caption, f"{caption}, {one.name}", True)]}
    if made.rollout is None:
        section["text"] = "There is no rollout: this model has no scene variable."
    return section


def walks(one: Subject, _: bool) -> Section:
    """The GIFs of `sri walk` in the run's folder."""
    folder = one.trained.run_dir / FIGURES
    films = [path for path in list_folder(folder) if path.match("walk*.gif")]
    films.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    command = shlex.join(["sri", "walk", "--run", run_argument(one.trained.run_dir)])
    if not films:
        return {"text": f"There is no GIF of a walk in {folder}; to make one: {command}"}
    figures, notes = [], [f"{path} is not shown." for path in films[FILMS:]]
    model, saved = run_subject(one.trained)["model"], one.trained.checkpoint.stat().st_mtime
    for path in films[:FILMS]:
        try:
            with Image.open(path) as film:
                still, size = io.BytesIO(), film.size
                film.convert("RGB").save(still, "PNG")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            notes.append(f"{path} cannot be read as a GIF; to make it again: {command}")
            continue
        other = ", of other weights" if is_of_others(path, model, saved) else ""
        content, alt = path.read_bytes(), f"The first frame of a walk of {one.name}"
        figure = {"source": data_uri(still.getvalue(), "png"), "width": size[0], "height": size[1]}
        figure |= {"caption": f"{path.name}, first frame{other}", "alt": alt}
        if len(content) <= FILM_BYTES:
            figure["film"] = data_uri(content, "gif")
        else:
            notes.append(f"{path} is too large to be included; open the file.")
        figures.append(figure)
    return {"figures": figures, "notes": notes}


def is_of_others(film: Path, model: str, saved: float) -> bool:
    """Whether a film shows other weights than `model`, by the record beside it.

    A film without a record does if it is older than the checkpoint, which was `saved` then.
    """
    try:
        record = from_json(film.with_suffix(".json").read_bytes())
        return model not in [one["model"] for one in record.get("runs", [record])]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return film.stat().st_mtime < saved


def data_section(subjects: Sequence[Subject]) -> Section:
    """Each data file once, with a contact sheet; or why it is not there."""
    parts: dict[str, Section] = {}
    for one in subjects:
        if isinstance(one.data, SriError):
            missing = {"title": one.trained.caption, **not_shown(one.data)}
            parts.setdefault(one.data.message, missing)
        elif (key := str(one.data.attrs["sha256"])) not in parts:
            parts[key] = data_part(one.data)
    if len(parts) == 1:
        return {**next(iter(parts.values())), "title": "Data"}
    return {"title": "Data", "parts": list(parts.values())}


def data_part(data: DataFile) -> Section:
    """How a data file was made, and some of its images."""
    section: Section = {
        "title": data.caption,
        "facts": [
            ("data set", data.caption),
            ("file", str(data.path)),
            ("images", counts_text(data)),
            ("source", data.source),
            ("seed", str(data.attrs.get("seed", "none"))),
            ("made with", parameters_text(data.attrs["parameters"])),
            ("masks", masked_splits(data)),
            ("images (SHA-256)", str(data.attrs["sha256"])[:16]),
        ],
    }
    try:
        panel, text = contact_panel(data, DATA_IMAGES, DATA_COLUMNS)
    except SriError as error:  # damaged beyond its header
        return section | not_shown(error)
    text += " above their masks" * (panel.together > 1)
    return section | {"figures": [image_figure(panel, text, f"{text}, {data.caption}")]}
