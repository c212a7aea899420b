"""The Python API: the verbs `sample`, `edit`, `walk`, `eval` and `train` as functions on tensors.

The same seed gives the numbers of the verbs. Nothing is printed unless `progress` is set; errors
are those of `sri_cli.errors`, and warnings are Python's. README.md has examples.

Axis legend: N scenes or images, K slots, D slot size, F frames, H W pixels.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sri_cli import console
from sri_cli.config.schema import flatten
from sri_cli.data.dataset import DataFile
from sri_cli.data.summary import find_files
from sri_cli.data.torch_dataset import ImageDataset as ImageDataset
from sri_cli.data.torch_dataset import OpenedData
from sri_cli.device import choose_device
from sri_cli.errors import SriError
from sri_cli.generation.edit import SourceScene, exchange, reimagine, remove, repeat
from sri_cli.generation.encode import Encoding, encode_images
from sri_cli.generation.sample import DrawnScene, check_request, decode_slots, joined, sample_scenes
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.generation.traverse import check_between, random_walk, walk_between, walk_scenes
from sri_cli.metrics.evaluate import METRICS, check_metrics, evaluate_run, parse_metrics
from sri_cli.metrics.image_metrics import ImageMetrics
from sri_cli.metrics.records import Measurement
from sri_cli.plotting.previews import draw_preview
from sri_cli.run import Workspace, checkpoints_in, run_argument
from sri_cli.scenes import Latents, Scenes
from sri_cli.training.distributed import is_first
from sri_cli.training.initial_weights import begin_run
from sri_cli.training.run_folder import note_on_settings, resolve_run
from sri_cli.training.trainer import check_data
from sri_cli.training.trainer import train as train_run

ENCODED = 256  # images at once; a multiple of the chunks in which a CPU infers them
ROUNDING = 1e-3  # by which images may leave [0,1], as resized ones do
Folder = str | os.PathLike[str]
Images = NDArray[np.uint8] | Tensor
Edit = Literal["remove", "repeat", "exchange", "reimagine"]


class Model:
    """A trained model: new scenes, and images as slots.

    Slots and scenes count from 0. No gradients are recorded: `module` is the torch module itself.
    Methods raise SriError for settings out of range, and SriFailure for scenes that are not finite.

    Attributes:
        run: The opened run: its folder, recipe, step, data.
        module: The torch module, in evaluation mode.
        recipe: What it was trained with.
        step: The training step of the checkpoint.
        num_slots: K in training, and of an image.
        image_size: H = W, pixels.
        has_scene: Whether it has a scene variable; without one `latent` is None everywhere.
        learns_order: Whether a slot's position means the same in every scene.
    """

    def __init__(self, run: TrainedRun) -> None:
        self.run, self.module, self.recipe, self.step = run, run.model, run.recipe, run.step
        self.num_slots, self.image_size = self.module.num_slots, self.module.image_size
        self.has_scene, self.learns_order = self.module.has_scene, self.module.learns_order

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.module.parameters()).device

    def __repr__(self) -> str:
        return f"Model({self.run.title}; {self.recipe.name}, {self.num_slots} slots, {self.device})"

    def sample(
        self, n: int = 16, *, slots: int | None = None, temperature: float = 1.0, seed: int = 0
    ) -> Scenes:
        """Draw scenes 0 .. n-1 of the seed, those of `sri sample`.

        Args:
            n: N.
            slots: K, by default that of training.
            temperature: Factor of every standard deviation of the prior.
            seed: Scene i is a function of the seed and i.
        """
        scenes = sample_scenes(self.module, n, self._total(slots), temperature, seed)
        return _joined(scenes, [f"scene {i}" for i in range(n)])

    def encode(
        self, images: Images, *, seed: int = 0, indices: Sequence[int] | None = None
    ) -> Latents:
        """Infer the latents of images: one sample of the posterior, in the order of generation.

        Args:
            images: uint8 [N,H,W,3] or [N,3,H,W], or float [N,3,H,W] in [0,1], of the model's size.
            seed: Of the posterior sample.
            indices: With the seed the sample of image i is a function of `indices[i]`, by default
                i. `sri figure` and `sri eval` take the number of an image in its split.

        Raises:
            SriError: for other images, or a model with dynamic slots: decoded, latents of empty
                slots would come back.
        """
        self._check_all_slots()
        inputs, numbers, keys = self._inputs(images, seed, indices)
        parts = []
        for start in range(0, len(inputs), ENCODED):  # what is decoded needs far more memory
            rows = slice(start, start + ENCODED)
            made = encode_images(self.module, inputs[rows], numbers[rows], seed)
            parts.append(Latents(made.slots, made.latent, made.order, keys))
        return joined(parts)

    def reconstruct(
        self, images: Images, *, seed: int = 0, indices: Sequence[int] | None = None
    ) -> Scenes:
        """Infer images and decode them; the arguments are those of `encode`."""
        inputs, numbers, keys = self._inputs(images, seed, indices)
        made: Encoding = encode_images(self.module, inputs, numbers, seed, rollout=True)
        return Scenes(**vars(made) | {"image": made.image.clamp(0, 1)}, keys=keys)

    def _inputs(
        self, images: Images, seed: int, indices: Sequence[int] | None
    ) -> tuple[Tensor, list[int], tuple[str, ...]]:
        """Images as the model takes them, their indices and keys."""
        check_request(1, 1, 1.0, seed)
        inputs = as_images(images, self.image_size)
        numbers = list(range(len(inputs)) if indices is None else indices)
        if len(numbers) != len(inputs):
            raise SriError(f"{len(numbers)} indices for {len(inputs)} images", "one for each")
        if min(numbers) < 0:
            raise SriError(f"index {min(numbers)}: images count from 0", "indices=[0]")
        keys = tuple(f"image {i}" if i else "image" for i in numbers)  # `sri edit --image` has one
        return inputs, numbers, keys

    def decode(self, slots: Tensor | Latents) -> Scenes:
        """Decode slots [N,K,D] of any K."""
        given = slots if isinstance(slots, Latents) else Latents(slots, None, None, ())
        size = self.module.decoded_size
        if given.slots.dim() != 3 or given.slots.shape[2] != size or not given.slots.numel():
            raise SriError(
                f"slots of shape {list(given.slots.shape)}", f"this model decodes [N, K, {size}]"
            )
        self._check_all_slots(given)
        keys = given.keys or tuple(f"scene {i}" for i in range(len(given)))
        return _joined(decode_slots(self.module, given.slots.float(), given.latent), keys)

    def edit(
        self,
        scenes: Latents,
        action: Edit,
        slot: int | Sequence[int],
        *,
        other: Latents | None = None,
        variants: int = 6,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> Scenes:
        """Edit scenes as `sri edit` does, of `sample`, `encode` or another edit.

        remove     each scene without the slot: K-1 slots, and the others share its pixels
        repeat     each scene with the slot twice, one after the other: K+1 slots
        exchange   scene i with the slot of `other[i]` (of `other[0]` if that is all) instead of its
                   own; without `other`, scenes 0 and 1, 2 and 3, ... exchange theirs
        reimagine  each scene drawn again from the slot on, `variants` times: N * variants scenes,
                   with the scene latent and the slots before it as they were

        Args:
            scenes: N scenes of K slots.
            action: What to do.
            slot: A slot, or several that are edited together; from 0.
            other: For exchange.
            variants: For reimagine, as `temperature` and `seed`.
        """
        self._check_all_slots(scenes, other)
        if not len(scenes):
            raise SriError("no scenes to edit", "pass at least one")
        total = scenes.slots.shape[1]
        group = tuple(int(k) for k in np.atleast_1d(np.asarray(slot)))
        self._check_slots(group, total)
        sources = _sources(scenes)
        if action == "remove":
            if len(set(group)) == total:
                raise SriError(f"all {total} slots removed: nothing is left", "remove fewer")
            rows = remove(sources, [group])
        elif action == "repeat":
            rows = [repeat([source], [group])[0] for source in sources]
        elif action == "exchange":
            rows = exchange(_pairs(scenes, other), [group])
            rows = rows if other is None else rows[::2]
        elif action == "reimagine":
            check_request(variants, total, temperature, seed)
            if len(group) > 1:
                raise SriError("reimagine starts from one slot", f"slot={min(group)}")
            if scenes.latent is None and "scene" in self.module.sampling_noise(total):
                hint = "take those of `sample` or `encode`, or decode them with their latent"
                raise SriError("these scenes have no scene latent", hint)
            rows = reimagine(self.module, sources, group, variants, temperature, seed)
        else:
            raise SriError(f"unknown edit {action}", "remove, repeat, exchange or reimagine")
        edits = [edit.slots for row in rows for edit in row.after]
        befores = [row.before for row in rows for _ in row.after]
        latents = [before.latent for before in befores if before.latent is not None]
        latent, keys = torch.stack(latents) if latents else None, tuple(one.key for one in befores)
        return self.decode(Latents(torch.stack(edits), latent, None, keys))

    def walk(
        self,
        n: int = 1,
        *,
        frames: int = 48,
        slot: int | None = None,
        between: tuple[int, int] | None = None,
        slots: int | None = None,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> Scenes:
        """Walk through latent space as `sri walk` does; the last frame leads to the first.

        Args:
            n: Walks; walk i begins at scene i of the seed.
            frames: F. There are F * N scenes, frame by frame: walk i is `scenes[i::n]`.
            slot: Only this slot walks, from 0; by default the scene latent does, and in a model
                without one the noise of all slots.
            between: From the scenes of one seed to those of another and back, for models with a
                scene variable.
            slots: K, by default that of training.
            temperature: Factor of every standard deviation of the prior.
            seed: Without effect with `between`.
        """
        total = self._total(slots)
        check_request(n, total, temperature, seed)
        if frames < 2:
            raise SriError(f"frames={frames}: a walk has at least 2 frames", "frames=48")
        if between is not None:
            check_request(n, total, temperature, min(between))
            if slot is not None:
                raise SriError("between moves the scene, slot holds it", "leave out one of the two")
            check_between(self.run, between)
            walk = walk_between(self.module, between, n, total, frames)
        else:
            if slot is not None:
                self._check_slots([slot], total)
            walk = random_walk(self.module, seed, n, total, frames, slot)
        keys = [f"frame {frame} of walk {i}" for frame in range(frames) for i in range(n)]
        return _joined(walk_scenes(self.module, walk, temperature), keys)

    def _total(self, slots: int | None) -> int:
        return self.num_slots if slots is None else slots

    def _check_all_slots(self, *given: Latents | None) -> None:
        """SriError for slots that may be empty: inferred ones, in these scenes or to come."""
        inferred = [one for one in given if isinstance(one, Scenes) and one.attention is not None]
        if self.module.dynamic_slots and (inferred or not given):
            raise SriError(
                "with dynamic slots, latents do not tell which slots are empty",
                "load the run without dynamic_slots",
            )

    def _check_slots(self, group: Sequence[int], total: int) -> None:
        for each in group:
            if not 0 <= each < total:
                raise SriError(f"slot {each}: the scenes have slots 0 to {total - 1}", "slot=0")
        if not group:
            raise SriError("no slot named", "slot=0")


def load(
    run: Folder | None = None,
    *,
    device: str | torch.device = "auto",
    dynamic_slots: bool = False,
    data_root: Folder | None = None,
    runs_root: Folder | None = None,
) -> Model:
    """Open a run's newest intact checkpoint.

    Args:
        run: What `--run` takes: a shipped model as `pretrained`, the name or folder of a run, or a
            checkpoint; by default the latest run. A shipped model is copied to the folder of runs.
        device: A torch device or its name, or `auto`: a GPU where there is one.
        dynamic_slots: Infer as many slots per image as it needs (GENESIS-v2, and SRI on it).
        data_root: Folder of data files, by default SRI_DATA, or `data`.
        runs_root: Folder of runs, by default SRI_RUNS, or `runs`.

    Raises:
        SriError: there is no such run or device, or the model has no dynamic slots.
    """
    workspace = _workspace(data_root, runs_root)
    name = None if run is None else os.fspath(run)
    with console.quiet():
        return Model(open_run(workspace, name, dynamic_slots, str(device)))


def open_data(
    name_or_file: Folder, *, size: int | None = None, data_root: Folder | None = None
) -> OpenedData:
    """Open a prepared data file: torch data sets of its splits, by name.

    Args:
        name_or_file: A file, or the name of a data set as `sri prepare --list` shows it.
        size: Of the images in px, for a name that is prepared in several sizes.
        data_root: Folder of data files, by default SRI_DATA, or `data`.

    Raises:
        SriError: there is no such file, or it is damaged.
    """
    files = find_files(_workspace(data_root, None), os.fspath(name_or_file), size)
    if len(files) > 1:
        raise SriError(
            f"{name_or_file} is prepared in several sizes: {', '.join(map(str, files))}",
            "name one: size=PX",
        )
    return OpenedData(DataFile(files[0]))


def evaluate(
    run: Model | Folder | None = None,
    metrics: str | Sequence[str] = METRICS,
    *,
    data: Folder | None = None,
    split: str = "test",
    num: int | None = None,
    seed: int = 0,
    features: Literal["pool3", "random"] = "pool3",
    inception_weights: Folder | None = None,
    offline: bool = False,
    progress: bool = False,
    data_root: Folder | None = None,
    runs_root: Folder | None = None,
) -> dict[str, Measurement]:
    """Measure a run as `sri eval` does; the values are appended to its metrics.jsonl, too.

    Args:
        run: A model, or what `load` takes.
        metrics: Names as `sri eval --metrics` takes them, in one text or each alone.
        data: Data file or name, by default what the run was trained on.
        split: Of the real images.
        num: Number of images, by default as in `sri eval`.
        seed: Of posterior samples and new scenes.
        features: Of FID.
        inception_weights: Of FID, by default searched or downloaded.
        offline: Download nothing.
        progress: Show a progress bar on stderr.
        data_root: As for `load`; not for a model, which has its own.
        runs_root: Likewise.

    Returns:
        By metric (`ari_fg`, `order_iou`, ...) what is recorded: `value`, the 95 % interval `low`
        to `high` (None where there is none), `counts`, `protocol`, `warning` and so on.

    Raises:
        SriError: data or weights are missing, or do not fit.
    """
    model = run if isinstance(run, Model) else load(run, data_root=data_root, runs_root=runs_root)
    weights = None if inception_weights is None else Path(inception_weights)
    networks = ImageMetrics(model.run.workspace, features, weights, offline)
    names = parse_metrics(metrics) if isinstance(metrics, str) else check_metrics(metrics)
    data_name = None if data is None else os.fspath(data)
    with console.quiet(not progress):
        records = evaluate_run(model.run, names, data_name, split, num, seed, networks)
    return {record["metric"]: record for record in records}


def train(
    recipe: Folder,
    overrides: Mapping[str, Any] | None = None,
    *,
    data: Folder | None = None,
    run: Folder | None = None,
    init_from: Folder | None = None,
    device: str | torch.device = "auto",
    on_record: Callable[[dict[str, Any]], None] | None = None,
    progress: bool = False,
    data_root: Folder | None = None,
    runs_root: Folder | None = None,
) -> Model:
    """Train a recipe in this process, or resume its run; the same as `sri train`.

    Args:
        recipe: Name or file.
        overrides: Keys of the recipe and their values, as {"size": "tiny", "train.steps": 200}, or
            {"train": {"steps": 200}}.
        data: Data set or file, by default the recipe's.
        run: Folder or name of the run, by default <recipe>-<data set>.
        init_from: Run or .pth file whose weights a new run starts from.
        device: A torch device or its name, or `auto`: a GPU where there is one.
        on_record: Called with every log record, a dict with `step`, the losses and the rate.
        progress: Show a progress bar on stderr.
        data_root: As for `load`.
        runs_root: Likewise.

    Returns:
        The model of the last step.

    Raises:
        SriError: recipe, data or folder do not fit.
        Interrupted: a signal came (in a notebook: the button); the same call resumes the run.
        Diverged: training diverged, also after its roll-backs.
    """
    workspace = _workspace(data_root, runs_root)
    device = str(device)
    name, words = os.fspath(recipe), [_word(*item) for item in flatten(overrides or {}).items()]
    named = {"data": data, "run": run, "init-from": init_from}
    options = {key: os.fspath(value) for key, value in named.items() if value is not None}
    # What resumes it in a shell, and stands in the run's command.txt.
    roots = {"--data-root": data_root, "--runs-root": runs_root}
    command = ["sri"]
    command += [os.fspath(part) for key, value in roots.items() if value for part in (key, value)]
    command += ["train", "--recipe", name]
    command += [part for key, value in options.items() for part in (f"--{key}", value)]
    resolved, data_name, run_dir = resolve_run(
        workspace, name, data=options.get("data"), run=options.get("run"), overrides=words
    )
    file = DataFile(workspace.find_data(data_name, resolved.model.image_size))
    with console.quiet(not progress):
        note = note_on_settings(name, resolved, data_name, words)
        if note is not None and is_first() and not checkpoints_in(run_dir):
            console.warn(note)
        choose_device(device)
        if init_from is not None and is_first():
            check_data(resolved, file)  # before anything is written
            begin_run(workspace, options["init-from"], resolved, file, run_dir)
        line = shlex.join([*command, *words])
        more: dict[str, Any] = {"on_record": on_record, "preview": draw_preview}
        train_run(resolved, file, run_dir, device=device, command=line, **more)
    return load(run_argument(run_dir), device=device, data_root=data_root, runs_root=runs_root)


def as_images(images: Images, size: int) -> Tensor:
    """Images of a call as float32 [N,3,H,W] in [0,1]; one without N is one of N = 1.

    Raises:
        SriError: for another shape, type, size or range.
    """
    given = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
    shape = list(given.shape)
    given = given[None] if given.dim() == 3 else given
    if given.dim() == 4 and given.shape[3] == 3:
        given = given.permute(0, 3, 1, 2)
    if given.dim() != 4 or given.shape[1] != 3 or not len(given):
        raise SriError(f"images of shape {shape}", "pass [N,3,H,W] or [N,H,W,3], N > 0")
    if given.shape[2:] != (size, size):
        height, width = given.shape[2:]
        raise SriError(
            f"images of {height}x{width} px, the model needs {size}x{size} px",
            "resize them first, for instance with torch.nn.functional.interpolate",
        )
    if given.dtype == torch.uint8:
        return given.float().div_(255)
    values = given.float()  # torch has no minimum of uint16
    low, high = values.aminmax()
    if not given.is_floating_point() or not (low >= -ROUNDING and high <= 1 + ROUNDING):
        kind = str(given.dtype).removeprefix("torch.")
        raise SriError(
            f"images of {kind} from {low:g} to {high:g}",
            "pass uint8 values, or float values in [0,1]",
        )
    return values.clamp(0, 1)


def _word(key: str, value: Any) -> str:
    """An override as on the command line, which is also what command.txt needs."""
    return f"{key}={value if isinstance(value, str) else json.dumps(value, default=_plain)}"


def _plain(value: Any) -> Any:
    """What JSON has for a value: a number of NumPy's, or text, which the recipe checks."""
    return value.item() if isinstance(value, np.generic) else str(value)


def _workspace(data_root: Folder | None, runs_root: Folder | None) -> Workspace:
    data = data_root or os.environ.get("SRI_DATA") or "data"
    runs = runs_root or os.environ.get("SRI_RUNS") or "runs"
    return Workspace(Path(data), Path(runs))


def _joined(chunks: Iterable[DrawnScene], keys: Sequence[str]) -> Scenes:
    """The chunks as one, on the CPU."""
    parts = [
        Scenes(
            slots=one.slots.cpu(),
            latent=None if one.latent is None else one.latent.cpu(),
            order=None,
            keys=tuple(keys),
            image=one.image.clamp(0, 1).cpu(),
            masks=one.masks[:, :, 0].cpu(),
            rgb=one.rgb.cpu(),
        )
        for one in chunks
    ]
    return joined(parts)


def _sources(scenes: Latents) -> list[SourceScene]:
    latents = [None] * len(scenes) if scenes.latent is None else scenes.latent
    return [
        SourceScene(key, key, slots, latent)
        for key, slots, latent in zip(scenes.keys, scenes.slots, latents, strict=True)
    ]


def _pairs(scenes: Latents, other: Latents | None) -> list[tuple[SourceScene, SourceScene]]:
    """The scenes that exchange slots; SriError unless they fit together."""
    sources = _sources(scenes)
    if other is None:
        if len(sources) % 2:
            raise SriError(
                f"{len(sources)} scenes: slots are exchanged between two each", "pass other="
            )
        return list(zip(sources[::2], sources[1::2], strict=True))
    partners = _sources(other) * (len(sources) if len(other) == 1 else 1)
    if len(partners) != len(sources) or other.slots.shape[1:] != scenes.slots.shape[1:]:
        raise SriError(
            f"other has slots {list(other.slots.shape)}, the scenes {list(scenes.slots.shape)}",
            "as many scenes, or one, of as many slots",
        )
    return list(zip(sources, partners, strict=True))
