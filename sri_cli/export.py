"""`sri export`: a trained model with its card, in the layout of the Hugging Face Hub (see hub.py).

The shipped models, `--run pretrained` and others, are such folders in the package.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sri_cli import __version__
from sri_cli import checkpoint as checkpoints
from sri_cli.atomic import new_folder
from sri_cli.config.load import RECORDED, recipe_to_yaml
from sri_cli.config.strict_yaml import write_yaml
from sri_cli.data.dataset import DataFile, prepare_arguments
from sri_cli.errors import SriError
from sri_cli.generation.sample import draw_scenes
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.hub import CARD, COMMANDS, CONFIG, GRID, LOG_NAME, MEASUREMENTS, RECIPE_NAME
from sri_cli.metrics.evaluate import evaluate_run
from sri_cli.metrics.published import system_name
from sri_cli.metrics.records import HALF, Measurement, largest, recorded
from sri_cli.metrics.tables import COLUMNS, footnotes, table_rows
from sri_cli.metrics.tabular import markdown_table, markdown_text
from sri_cli.plotting.images import make_grid, png_bytes
from sri_cli.run import Workspace, recipe_file
from sri_cli.strict_json import to_json
from sri_cli.training.log import read_log
from sri_cli.training.run_folder import commands_until, trained_on

LIBRARY = "sri-cli"
TASK = "unconditional-image-generation"  # of the hub's list
TAGS = ("object-centric", "slots", "autoregressive", "vae")
SAMPLES, GRID_COLUMNS, SCENE_PX = 32, 8, 96  # of the grid; px: each scene at least
# Of a checkpoint's `extra`, what holds for any machine
KEPT = ("data", "precision", "imported", "started_from")
LICENCE = "apache-2.0"
CITATION = """@article{emami2024towards,
  title   = {Toward Improving the Generation Quality of Autoregressive Slot {VAEs}},
  author  = {Emami, Patrick and He, Pan and Ranka, Sanjay and Rangarajan, Anand},
  journal = {Neural Computation},
  volume  = {36}, number = {5}, pages = {858--896}, year = {2024},
  doi     = {10.1162/neco_a_01635}, note = {arXiv:2206.01370}
}"""


def export(
    workspace: Workspace,
    run: str | None,
    out: Path,
    *,
    half: bool = False,
    licence: str = LICENCE,
    metrics: Sequence[str] = (),
) -> Path:
    """Write the newest intact checkpoint of `run` (None: the latest) to the new folder `out`.

    It can be opened and sampled, not trained further: optimiser and GECO are left out, and so are
    paths of this machine but for those in the commands that were typed.

    Args:
        workspace: Where runs and data are.
        run: Run, checkpoint or exported model.
        out: Missing, or an empty folder; complete at the end, or not there at all.
        half: Store float16. What was measured of the run is not of these weights.
        licence: Of the weights, an identifier of the hub.
        metrics: Of `sri eval`: what to measure of the exported weights first.

    Raises:
        SriError: for a folder that is not empty, an encoder whose weights are in a file, values
            beyond half precision, or metrics without their data.
        SriFailure: the disk refuses.
    """
    with new_folder(out) as folder:
        trained = open_run(workspace, run)
        if "@" in (trained.recipe.model.encoder or ""):
            raise SriError(
                f"{trained.run_dir} needs the weights of its encoder from a file",
                "export a model that was trained with model.encoder=timm/NAME",
            )
        saved = checkpoints.verify(trained.checkpoint)
        weights = (saved.path / checkpoints.WEIGHTS).read_bytes()
        if half:
            weights = checkpoints.weights_bytes(halved(saved.weights()))
            trained.model.load_state_dict(halved(saved.weights()))
            trained = replace(trained, extra=trained.extra | {HALF: True})
        data = _data_of(trained)
        commands = commands_of(trained, data)
        extra = {key: saved.extra[key] for key in KEPT if key in saved.extra}
        extra |= {"source": {"caption": trained.caption}, "commands": commands}
        files = {checkpoints.WEIGHTS: weights}
        recipe = trained.recipe.model_dump(mode="json")
        files[CONFIG] = checkpoints.meta_bytes(saved.step, files, recipe, extra)
        known = recipe_file(trained.run_dir)
        about = {"trained_on": trained_on(data)} if data else {}
        about |= {key: known[key] for key in RECORDED if key in known}
        files[RECIPE_NAME] = recipe_to_yaml(trained.recipe, about).encode()
        files[COMMANDS] = "".join(f"{line}\n" for line in commands).encode()
        log = trained.run_dir / LOG_NAME
        if log.is_file():
            files[LOG_NAME] = _lines([r for r in read_log(log) if r["step"] <= saved.step])
        if metrics:
            evaluate_run(trained, metrics)
        name = out.resolve().name
        measured = []
        for m in recorded(trained):
            subject = {key: value for key, value in m["subject"].items() if key != HALF}
            measured.append({**m, "subject": {**subject, "run": name}})
        if measured:
            files[MEASUREMENTS] = _lines(measured)
        scenes = draw_scenes(trained.model, SAMPLES, trained.model.num_slots, 1.0, seed=0)
        size = scenes.images.shape[1]
        grid = make_grid(scenes.images, columns=GRID_COLUMNS, gap=2, scale=max(1, SCENE_PX // size))
        files[GRID] = png_bytes(grid)
        files[CARD] = model_card(trained, name, licence, commands, largest(measured)).encode()
        for file, content in files.items():
            (folder / file).write_bytes(content)
    return out


def halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """float16 for every floating-point tensor; SriError for a value beyond its range."""
    half = {name: t.half() if t.is_floating_point() else t for name, t in weights.items()}
    lost = [name for name, t in half.items() if not t.isfinite().all()]
    if lost:
        raise SriError(f"beyond half precision: {', '.join(lost)}", "leave --half out")
    return half


def commands_of(trained: TrainedRun, data: DataFile | None) -> list[str]:
    """The commands that made data and run, as far as they are known, for any machine."""
    known = trained.extra.get("commands")
    if known:  # of an exported model
        return list(known)
    arguments = prepare_arguments(data.attrs) if data else None
    if data is None or arguments is None:
        return commands_until(trained.run_dir, trained.step)
    usual = data.path.name == f"{data.name}-{data.size}.h5"
    out = "" if usual else f" --out {shlex.quote(f'data/{data.path.name}')}"
    lines = [f"sri prepare {arguments}{out}", *commands_until(trained.run_dir, trained.step)]
    return list(dict.fromkeys(lines))  # a run that began with an exported model has it already


def model_card(
    trained: TrainedRun,
    name: str,
    licence: str,
    commands: Sequence[str],
    measured: Sequence[Measurement],
) -> str:
    """README.md: the hub's front matter, and what a reader has to know of the model."""
    recipe = trained.recipe
    system = system_name(recipe.name, recipe.size)
    front: dict[str, Any] = {
        "library_name": LIBRARY,
        "pipeline_tag": TASK,
        "license": licence,
        "tags": [*TAGS, recipe.name],
    }
    if measured:
        front["model-index"] = [{"name": name, "results": results_of(measured)}]
    facts = {
        "System": f"{system}, {recipe.description}",
        "Data": f"{trained.caption}, {recipe.model.image_size} px",
        "Step": f"{trained.step:,} of {recipe.train.steps:,}, batch {recipe.train.batch}",
        "Slots": str(trained.model.num_slots),
        "Parameters": f"{sum(p.numel() for p in trained.model.parameters()):,}",
        "Likelihood": f"{recipe.model.likelihood}, std {recipe.model.std:g}",
        "Training seed": str(recipe.train.seed),
    }
    rows = [["", ""], *([key, value] for key, value in facts.items())]
    parts = [
        f"---\n{write_yaml(front)}---\n",
        f"# {markdown_text(name)}\n",
        f"{system}: an autoregressive slot VAE, trained with `sri` {__version__} on"
        f" {markdown_text(trained.caption)}. It draws scenes object by object.\n",
        f"![Samples]({GRID})\n",
        f"*{SAMPLES} scenes at temperature 1, seed 0, not selected.*\n",
        "## Use\n",
        "```\npip install 'sri-cli[hub]'\nsri sample --run hf:OWNER/NAME --slots"
        f" {trained.model.num_slots} --temp 0.7\n```\n",
        "with the name of this repository, or with a local copy of it: `--run DIR`. Nothing in it"
        f" is unpickled: the weights are `{checkpoints.WEIGHTS}`, and `{CONFIG}` holds the recipe"
        " and the SHA-256 of the weights.\n",
        "## Model\n",
        markdown_table(rows, left=2) + "\n",
        f"All settings are in `{RECIPE_NAME}`, the course of the training in `{LOG_NAME}`.\n",
    ]
    if commands:
        parts += ["Made by\n", "```\n" + "\n".join(commands) + "\n```\n"]
    parts += ["## Measurements\n"]
    if measured:
        parts += [
            "Values with 95 % intervals.\n",
            markdown_table(table_rows(measured)) + "\n",
            "\n".join(f"- {markdown_text(line.strip())}" for line in footnotes(measured)) + "\n",
        ]
    else:
        parts += ["None are recorded of these weights; to measure: `sri eval --run DIR`.\n"]
    parts += [f"## Licence\n\n{licence}\n", f"## Citation\n\n```\n{CITATION}\n```"]
    return "\n".join(parts) + "\n"


def results_of(measured: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Measurements as the hub's model-index has them: a result for each data file and split."""
    results: dict[tuple[Any, ...], dict[str, Any]] = {}
    for m in measured:
        data = m["data"] or {"name": "none", "source": "none", "split": None}
        key = tuple(data.get(part) for part in ("name", "source", "sha256", "split"))
        result = results.setdefault(
            key,
            {
                "task": {"type": TASK},
                "dataset": {
                    "type": data["name"],
                    "name": f"{data['name']} ({data['source']})",
                    **({"split": data["split"]} if data["split"] else {}),
                },
                "metrics": [],
            },
        )
        if m["value"] is not None and m["metric"] in COLUMNS:
            args = {"protocol": m["protocol"], **m["counts"], "seed": m["seed"]}
            metric = {"type": m["metric"], "name": m["name"], "value": m["value"], "args": args}
            result["metrics"].append(metric)
    return [result for result in results.values() if result["metrics"]]


def _data_of(trained: TrainedRun) -> DataFile | None:
    """The data file of the training; None where it is not here."""
    if "data" not in trained.extra:
        return None
    try:
        data = trained.open_data()
    except SriError:
        return None
    same = str(data.attrs["sha256"]).startswith(trained.extra["data"].get("content", ""))
    return data if same else None


def _lines(records: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(f"{to_json(record)}\n" for record in records).encode()
