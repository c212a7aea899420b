"""`sri doctor`: what works on this machine, what does not, and the command that fixes it.

Nothing is changed. Whatever needs torch is asked of another process (`python -m sri_cli.doctor`),
because a broken torch can crash or hang; it takes versions and GPUs from `torch.utils.collect_env`.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import sri_cli
from sri_cli.atomic import list_folder
from sri_cli.errors import SriError
from sri_cli.run import Workspace, checkpoints_in

PYTHON_VERSIONS = (3, 11), (3, 13)
COMPILED_PACKAGES = {"numpy", "scipy", "h5py", "safetensors"}  # all else is built on them
PROBE_TIMEOUT_SEC = 120.0
LITTLE_MEMORY, LITTLE_DISK, NO_DISK = 4e9, 5e9, 2e8  # bytes
REINSTALL_TORCH = ("--force-reinstall", "torch", "torchvision")


@dataclass(frozen=True)
class Finding:
    """One line of the result: `fix` is the command that helps.

    `essential`: without it nothing can be trained or sampled.
    """

    level: Literal["ok", "note", "problem"]
    topic: str
    text: str
    fix: str = ""
    essential: bool = False


def examine(workspace: Workspace) -> list[Finding]:
    """All findings; a check that fails itself is one of them."""
    probe = start_probe()  # runs while the files are checked
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "python": check_python,
        "packages": check_packages,
        "memory": check_memory,
        "compiler": check_compiler,
        "video": check_video,
        "browser": check_browser,
        "data folder": lambda: check_folder("data folder", "--data-root", workspace.data_root),
        "runs folder": lambda: check_folder("runs folder", "--runs-root", workspace.runs_root),
        "data": lambda: check_data(workspace.data_root),
        "runs": lambda: check_runs(workspace.runs_root),
        "torch": lambda: check_torch(read_probe(probe)),
    }
    return [finding for topic, check in checks.items() for finding in guarded(topic, check)]


def guarded(topic: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of `check`; an exception in it becomes a problem."""
    try:
        yield from check()
    except Exception as error:
        yield Finding("problem", topic, f"this check failed: {type(error).__name__}: {error}")


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Iterator[Finding]:
    """The version of Python."""
    oldest, newest = (".".join(map(str, bound)) for bound in PYTHON_VERSIONS)
    text = f"sri {sri_cli.__version__}, Python {'.'.join(map(str, version))} ({sys.executable})"
    fix = f"python{newest} -m venv .venv, and install sri there"
    if version[:2] < PYTHON_VERSIONS[0]:
        yield Finding("problem", "python", f"{text}: {oldest} or newer is required", fix, True)
    elif version[:2] > PYTHON_VERSIONS[1]:
        yield Finding("note", "python", f"{text}: not tested above {newest}", fix)
    else:
        yield Finding("ok", "python", text)


def check_packages() -> Iterator[Finding]:
    """Every dependency of the installed sri: present, new enough, importable."""
    try:
        requirements = metadata.requires("sri-cli") or []
    except metadata.PackageNotFoundError:
        yield Finding("note", "packages", "sri is not installed, so its dependencies are unknown")
        return
    required = [re.match(r"([\w.-]+)\s*(?:>=\s*([\d.]+))?", r) for r in requirements]
    wrong = 0
    for match, requirement in zip(required, requirements, strict=True):
        if match is None or "extra ==" in requirement:
            continue
        name, least = match[1], match[2] or "0"
        fault = package_fault(name, least)
        if fault:
            wrong += 1
            fix = pip("--upgrade", f"{name}>={least}" if match[2] else name)
            yield Finding("problem", "packages", fault, fix, essential=True)
    if not wrong:
        versions = ", ".join(f"{name} {version_of(name)}" for name in sorted(COMPILED_PACKAGES))
        yield Finding("ok", "packages", f"all dependencies, among them {versions}")


def package_fault(name: str, least: str) -> str | None:
    """What is wrong with an installed package, or None."""
    version = version_of(name)
    if version is None:
        return f"{name} is not installed"
    if numbers(version) < numbers(least):
        return f"{name} {version} is too old, {least} or newer is required"
    if name in COMPILED_PACKAGES:
        try:
            importlib.import_module(name)
        except Exception as error:
            return f"{name} cannot be imported: {error}"
    return None


def check_memory() -> Iterator[Finding]:
    """Cores and free memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        meminfo = Path("/proc/meminfo").read_text("ascii")
    except OSError:
        yield Finding("note", "memory", f"{cores} cores; the free memory is unknown")
        return
    free, total = (
        1024 * int(re.search(rf"^{key}: +(\d+)", meminfo, re.M)[1])  # type: ignore[index]
        for key in ("MemAvailable", "MemTotal")
    )
    text = f"{cores} cores, {free / 1e9:.1f} of {total / 1e9:.1f} GB of memory free"
    if free < LITTLE_MEMORY:
        yield Finding("note", "memory", f"{text}: little", "train with train.batch=16")
    else:
        yield Finding("ok", "memory", text)


def check_compiler(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """What torch.compile needs: a C++ compiler and Python's headers."""
    chosen = environment.get("CXX")
    names = [shlex.split(chosen)[0]] if chosen else ["g++", "clang++", "c++"]
    compiler = next((path for name in names if (path := shutil.which(name))), None)
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if compiler is None:
        text = f"CXX={chosen} does not exist" if chosen else "no C++ compiler"
        yield Finding("note", "compiler", f"{text}: train.compile=on fails", "apt install g++")
    elif not header.is_file():
        text = f"{header} is missing: train.compile=on fails"
        yield Finding("note", "compiler", text, "apt install python3-dev")
    else:
        yield Finding("ok", "compiler", f"{compiler}, for train.compile")


def check_video() -> Iterator[Finding]:
    """The encoder of `sri walk`."""
    from sri_cli.plotting.video import missing_encoder

    missing = missing_encoder()
    if missing is not None:
        fix = pip("imageio-ffmpeg")
        yield Finding("note", "video", f"no MP4, `sri walk` writes GIF: {missing}", fix)
    else:
        yield Finding("ok", "video", "MP4 and GIF")


def check_browser() -> Iterator[Finding]:
    """Whether `sri label-sacc` can open a browser here."""
    from sri_cli.labeling.app import far_from_browser

    if far_from_browser(os.environ):
        text = "no display: `sri label-sacc` prints the ssh command that forwards its page"
        yield Finding("note", "browser", text)
    else:
        yield Finding("ok", "browser", "`sri label-sacc` can open one")


def check_folder(topic: str, option: str, path: Path) -> Iterator[Finding]:
    """Whether a folder exists or can be created, is writable, and how much space is left."""
    existing = path
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    fix = f"choose another folder: sri {option} DIR ..."
    if not existing.is_dir():
        yield Finding("problem", topic, f"{existing} is not a folder", fix, essential=True)
        return
    if not os.access(existing, os.W_OK | os.X_OK):
        yield Finding("problem", topic, f"{existing} is not writable", fix, essential=True)
        return
    free = shutil.disk_usage(existing).free
    state = "writable" if existing == path else "will be created"
    text = f"{path}: {state}, {free / 1e9:,.1f} GB free"
    if free < NO_DISK:
        yield Finding("problem", topic, f"{text}: too little to train", fix)
    elif free < LITTLE_DISK:
        yield Finding("note", topic, f"{text}: little", fix)
    else:
        yield Finding("ok", topic, text)


def check_data(root: Path) -> Iterator[Finding]:
    """Every data file: complete and readable (its images are not read)."""
    from sri_cli.data.dataset import DataFile

    for path in root.glob("*.h5.partial") if root.is_dir() else ():
        yield Finding("note", "data", f"{path} is unfinished", "run its `sri prepare` again")
    files = sorted(root.glob("*.h5")) if root.is_dir() else []
    if not files:
        yield Finding("note", "data", f"no data file in {root}", "sri prepare shapestacks")
    for path in files:
        try:
            data = DataFile(path)
        except SriError as error:
            yield Finding("problem", "data", error.message, error.hint or "")
        else:
            counts = ", ".join(f"{number:,} {split}" for split, number in data.counts.items())
            yield Finding("ok", "data", f"{path}: {data.caption}, {counts} images")


def check_runs(root: Path) -> Iterator[Finding]:
    """Every run: is its newest checkpoint intact, to the last byte?"""
    from sri_cli.checkpoint import newest_good

    runs = [path for path in list_folder(root) if (path / "checkpoints").is_dir()]
    if not runs:
        yield Finding("note", "runs", f"no run in {root}", "sri demo, or sri train")
    intact = 0
    for run in runs:
        if not checkpoints_in(run):
            yield Finding("note", "runs", f"{run} has no checkpoint", "run its `sri train` again")
            continue
        try:
            newest = newest_good(run, quiet=True)
        except SriError as error:
            yield Finding("problem", "runs", error.message, error.hint or "")
            continue
        if newest is not None and newest.skipped:
            text = f"{newest.skipped[0].message}; step {newest.step:,} is intact"
            yield Finding("problem", "runs", text, "run its `sri train` again to go on from there")
        else:
            intact += 1
    if intact:
        yield Finding("ok", "runs", f"{intact} with an intact newest checkpoint")


def start_probe() -> subprocess.Popen[str]:
    """Run `probe` in another process, with the modules that this one would import."""
    package = str(Path(sri_cli.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), package]))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "sri_cli.doctor"],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def read_probe(process: subprocess.Popen[str], timeout: float = PROBE_TIMEOUT_SEC) -> dict:
    """The result of `probe`, or {"torch_error": why there is none}."""
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"torch_error": f"importing it takes more than {timeout:.0f} s"}
    try:
        result: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
        return result
    except (IndexError, ValueError):
        code = process.returncode
        end = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        last = (errors.strip().splitlines() or ["no output"])[-1]
        return {"torch_error": f"importing it fails ({end}): {last[:300]}"}


def check_torch(facts: dict[str, Any]) -> Iterator[Finding]:
    """torch and torchvision, devices, bf16 and the Inception weights, from the probe."""
    yield from check_torchvision_pair(version_of("torch"), version_of("torchvision"))
    for name in ("torch", "torchvision"):
        if f"{name}_error" in facts:
            text = f"{name} cannot be used: {facts[f'{name}_error']}"
            yield Finding("problem", name, text, pip(*REINSTALL_TORCH), essential=True)
        if name in facts:
            yield Finding("ok", name, facts[name])
    if "torch_error" in facts:
        return
    yield from check_devices(facts)
    if "weights" in facts:
        yield Finding("ok", "weights", f"Inception weights for FID: {facts['weights']}")
    else:
        fix = "sri eval --metrics fid downloads and verifies them"
        yield Finding("note", "weights", facts["weights_error"], fix)


def check_torchvision_pair(torch: str | None, torchvision: str | None) -> Iterator[Finding]:
    """Each torchvision is built for one version of torch and fails with every other."""
    if torch is None or torchvision is None:
        return
    matches = [
        re.match(r"torch\s*\(?==\s*([\d.]+)", r) for r in metadata.requires("torchvision") or []
    ]
    wanted = next((match[1] for match in matches if match), None)
    if wanted is not None and numbers(torch) != numbers(wanted):
        text = f"torchvision {torchvision} needs torch {wanted}, installed is torch {torch}"
        fix = pip("--upgrade", "torch", "torchvision")
        yield Finding("problem", "torchvision", text, fix, essential=True)


def check_devices(facts: dict[str, Any]) -> Iterator[Finding]:
    """GPUs that torch can use, and those of the driver that it cannot."""
    for gpu in facts["gpus"]:
        if gpu["error"]:
            text = f"{gpu['name']} cannot compute: {gpu['error']}"
            yield Finding("problem", "device", text, pip(*REINSTALL_TORCH))
        else:
            yield Finding("ok", "device", gpu["name"])
    if not facts["gpus"] and facts["driver_gpus"] and facts["cuda"] is None:
        text = f"{facts['driver_gpus']}: unused, because this torch is built for CPUs"
        yield Finding("note", "device", text, pip(*REINSTALL_TORCH))
    elif not facts["gpus"] and facts["driver_gpus"]:
        text = f"{facts['driver_gpus']}: torch for CUDA {facts['cuda']} cannot use it"
        fix = "update the driver, or unset CUDA_VISIBLE_DEVICES"
        yield Finding("problem", "device", text, fix)
    elif not facts["gpus"]:
        yield Finding("ok", "device", f"no GPU; the CPU is {facts['cpu']}")
    precision = "bf16, native here" if facts["bf16"] else "fp32, because bf16 is emulated here"
    yield Finding("ok", "bf16", f"train.precision=auto takes {precision}")


def version_of(name: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def numbers(version: str) -> list[int]:
    """[2, 9, 1] of "2.9.1+cpu"."""
    match = re.match(r"\d+(\.\d+)*", version)
    return [int(part) for part in match[0].split(".")] if match else []


def pip(*arguments: str) -> str:
    """The command that installs into this Python."""
    return shlex.join([sys.executable, "-m", "pip", "install", *arguments])


def probe() -> dict[str, Any]:
    """What only torch knows; the keys of what fails end in `_error`."""
    facts: dict[str, Any] = {}
    for name, ask in {"torch": _probe_torch, "torchvision": _probe_torchvision}.items():
        try:
            facts |= ask()
        except BaseException as error:
            facts[f"{name}_error"] = f"{type(error).__name__}: {error}"[:300]
    if "torch" not in facts:
        return facts
    from sri_cli.metrics.inception import find_weights, read_weights

    try:
        path = find_weights(offline=True)
        read_weights(path)
        facts["weights"] = str(path)
    except SriError as error:
        facts["weights_error"] = error.message.removeprefix("--offline: ")
    return facts


def _probe_torch() -> dict[str, Any]:
    import torch
    from torch.utils.collect_env import get_env_info

    from sri_cli.device import choose_device, cpu_model, has_native_bf16

    torch.ones(2).sum().item()
    environment: Any = get_env_info()
    gpus = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        name = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB"
        gpus.append({"name": name, "error": _gpu_error(index)})
    return {
        "torch": f"torch {torch.__version__}",
        "cuda": torch.version.cuda or torch.version.hip,
        "gpus": gpus,
        "driver_gpus": environment.nvidia_gpu_models,
        "cpu": cpu_model(),
        "bf16": has_native_bf16(choose_device()),
    }


def _gpu_error(index: int) -> str | None:
    import torch

    try:
        torch.ones(2, device=f"cuda:{index}").sum().item()
    except Exception as error:
        return str(error)
    return None


def _probe_torchvision() -> dict[str, Any]:
    import torchvision
    import torchvision.ops  # noqa: F401 (its compiled part)

    return {"torchvision": f"torchvision {torchvision.__version__}"}


if __name__ == "__main__":
    result = json.dumps(probe())
    sys.stdout.write(f"\n{result}\n")  # libraries may print before
