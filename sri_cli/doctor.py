"""`sri doctor`: what works on this machine, what does not, and the command that fixes it.

Nothing is changed. torch is examined in another process (`python -m sri_cli.doctor`), because a
broken one can crash or hang.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal

import sri_cli
from sri_cli.atomic import list_folder
from sri_cli.console import counted
from sri_cli.cores import available_cores, free_memory
from sri_cli.errors import SriError, pip_install
from sri_cli.hub import opened_from
from sri_cli.run import SHIPPED, Workspace, checkpoints_in, runs_in

COMPILED_PACKAGES = ("h5py", "numpy", "safetensors", "scipy")  # all else is built on them
PROBE_TIMEOUT_SEC = 120.0
LITTLE_MEMORY, LITTLE_DISK, NO_DISK = 4e9, 5e9, 2e8  # bytes
Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line of the result: `fix` is the command that helps.

    `essential`: without it nothing can be trained or sampled.
    """

    level: Level
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
        "browser": check_browser,
        "data folder": partial(check_folder, "data folder", "--data-root", workspace.data_root),
        "runs folder": partial(check_folder, "runs folder", "--runs-root", workspace.runs_root),
        "data": partial(check_data, workspace.data_root),
        "runs": partial(check_runs, workspace.runs_root),
        "torch": partial(read_probe, probe),
    }
    return [finding for topic, check in checks.items() for finding in guarded(topic, check)]


def guarded(topic: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of `check`; an exception in it becomes a problem."""
    try:
        yield from check()
    except Exception as error:
        yield Finding("problem", topic, f"this check failed: {type(error).__name__}: {error}")


def check_python() -> Iterator[Finding]:
    """The versions of sri and Python."""
    text = f"sri {sri_cli.__version__}, Python {platform.python_version()} ({sys.executable})"
    yield Finding("ok", "python", text)


def check_packages() -> Iterator[Finding]:
    """The dependencies of sri and of torchvision, which is built for one version of torch."""
    faults: dict[str, str | None] = {}
    for package in ("sri-cli", "torchvision"):
        try:
            requirements = metadata.requires(package) or []
        except metadata.PackageNotFoundError:
            text = f"{package} is not installed, so its dependencies are unknown"
            yield Finding("note", "packages", text)
        else:
            faults |= {requirement: package_fault(requirement) for requirement in requirements}
    for requirement, fault in faults.items():
        if fault:
            yield Finding("problem", "packages", fault, pip_install("--upgrade", requirement), True)
    if not any(faults.values()):
        versions = ", ".join(f"{name} {version_of(name)}" for name in COMPILED_PACKAGES)
        yield Finding("ok", "packages", f"all dependencies, among them {versions}")


def package_fault(requirement: str) -> str | None:
    """What is wrong with the installed package of a requirement such as "numpy>=1.26", or None."""
    from packaging.requirements import Requirement

    required = Requirement(requirement)
    if required.marker and not required.marker.evaluate({"extra": ""}):
        return None
    version = version_of(required.name)
    if version is None:
        return f"{required.name} is not installed"
    if not required.specifier.contains(version, prereleases=True):
        return f"{required.name} {version} is installed, {requirement} is required"
    if required.name in COMPILED_PACKAGES:
        try:
            importlib.import_module(required.name)
        except Exception as error:
            return f"{required.name} cannot be imported: {error}"
    return None


def check_memory() -> Iterator[Finding]:
    """Cores and free memory."""
    free = free_memory()
    text = f"{counted(available_cores(), 'core')}, {free / 1e9:.1f} GB of memory to use"
    if free < LITTLE_MEMORY:
        yield Finding("note", "memory", f"{text}: little", "train with train.batch=16")
    else:
        yield Finding("ok", "memory", text)


def check_compiler(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """What torch.compile needs: a C++ compiler and Python's headers."""
    chosen = environment.get("CXX")
    names = [shlex.split(chosen)[0]] if chosen else ["c++", "g++", "clang++"]
    compiler = next((path for name in names if (path := shutil.which(name))), None)
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    mac = sys.platform == "darwin"
    if compiler is None:
        text = f"CXX={chosen} does not exist" if chosen else "no C++ compiler"
        slower = "" if mac else "training on a CPU is slower, "
        fix = "xcode-select --install" if mac else "apt install g++"
        yield Finding("note", "compiler", f"{text}: {slower}train.compile=on fails", fix)
    elif not header.is_file():
        text = f"{header} is missing: train.compile=on fails"
        yield Finding("note", "compiler", text, "apt install python3-dev")
    else:
        use = "train.compile" if mac else "CPU kernels and train.compile"
        yield Finding("ok", "compiler", f"{compiler}, for {use}")


def check_browser() -> Iterator[Finding]:
    """Whether `sri label-sacc` can open a browser here."""
    from sri_cli.labeling.app import far_from_browser

    if far_from_browser(os.environ):
        text = "no display: `sri label-sacc` prints its address, and how to forward it"
        yield Finding("note", "browser", text)
    else:
        yield Finding("ok", "browser", "`sri label-sacc` can open one")


def check_folder(topic: str, option: str, path: Path) -> Iterator[Finding]:
    """Whether a folder exists or can be created, is writable, and how much space is left."""
    existing = next((one for one in (path, *path.parents) if os.path.lexists(one)), Path())
    fix = f"choose another folder: sri {option} DIR ..."
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        fault = "is not writable" if existing.is_dir() else "is not a folder"
        # Data that others have prepared are only read.
        shared = option == "--data-root" and any(path.glob("*.h5"))
        level: Level = "note" if shared else "problem"
        yield Finding(level, topic, f"{existing} {fault}", fix, essential=not shared)
        return
    free = shutil.disk_usage(existing).free
    level = "problem" if free < NO_DISK else "note" if free < LITTLE_DISK else "ok"
    state = "writable" if existing == path else "will be created"
    text = f"{path}: {state}, {free / 1e9:,.1f} GB free"
    yield Finding(level, topic, text, "" if level == "ok" else fix)


def check_data(root: Path) -> Iterator[Finding]:
    """Every data file: complete and readable (its images are not read)."""
    from sri_cli.data.dataset import DataFile

    files = [path for path in list_folder(root) if path.name.endswith(".h5")]
    if not files:
        yield Finding("note", "data", f"no data file in {root}", "sri prepare shapestacks")
    for path in root.glob("*.h5.partial"):
        yield Finding("note", "data", f"{path} is unfinished", "run its `sri prepare` again")
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

    runs = [run for run in runs_in(root) if (run / "checkpoints").is_dir()]
    if not runs:
        yield Finding(
            "note", "runs", f"no run in {root}", "sri sample --run pretrained, or sri demo"
        )
    intact = 0
    for run in runs:
        if not checkpoints_in(run):
            yield Finding("note", "runs", f"{run} has no checkpoint", "run its `sri train` again")
            continue
        try:
            newest = newest_good(run, quiet=True)
        except SriError as error:
            whole = ""
            if run.parent == root and run.name in SHIPPED:
                whole = f"sri sample --run {run.name} copies it anew"
            elif origin := opened_from(run):
                whole = f"it is a copy: sri sample --run {shlex.quote(origin)} copies it anew"
            yield Finding("problem", "runs", error.message, whole or error.hint or "")
            continue
        if newest is not None and newest.skipped:
            text = f"{newest.skipped[0].message}; step {newest.step:,} is intact"
            yield Finding("problem", "runs", text, "run its `sri train` again to go on from there")
        else:
            intact += 1
    if intact:
        yield Finding("ok", "runs", f"{intact} with an intact newest checkpoint")


def start_probe() -> subprocess.Popen[str]:
    """Run `check_torch` in another process, with the modules that this one would import."""
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


def read_probe(
    process: subprocess.Popen[str], timeout: float = PROBE_TIMEOUT_SEC
) -> Iterator[Finding]:
    """The findings of `check_torch`, or why there are none."""
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        yield unusable("torch", f"importing it takes more than {timeout:.0f} s")
        return
    try:
        yield from (Finding(**fields) for fields in json.loads(output.strip().splitlines()[-1]))
    except (IndexError, ValueError):
        code = process.returncode
        end = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        last = (errors.strip().splitlines() or ["no output"])[-1]
        yield unusable("torch", f"importing it fails ({end}): {last}")


def check_torch() -> Iterator[Finding]:
    """torch and torchvision, and what imports them: devices, bf16, Inception weights."""
    for module in ("torch", "torchvision.ops"):  # ops: the compiled part
        name = module.partition(".")[0]
        try:
            importlib.import_module(module)
        except BaseException as error:
            yield unusable(name, f"{type(error).__name__}: {error}")
            if name == "torch":
                return
        else:
            yield Finding("ok", name, f"{name} {version_of(name)}")
    import torch
    from torch.utils import collect_env

    from sri_cli.device import choose_device, has_native_bf16

    cuda = torch.version.cuda or torch.version.hip
    yield from check_devices(gpu_errors(), collect_env.get_gpu_info(collect_env.run), cuda)
    native = has_native_bf16(choose_device())
    precision = "bf16, native here" if native else "fp32, because bf16 is emulated here"
    yield Finding("ok", "bf16", f"train.precision=auto takes {precision}")
    yield from guarded("weights", check_weights)


def check_weights() -> Iterator[Finding]:
    """The Inception weights for FID; a missing download is a note, a damaged file a problem."""
    from sri_cli.metrics.inception import VARIABLE, find_weights, read_weights

    try:
        path = find_weights(offline=True)
    except SriError as error:
        if os.environ.get(VARIABLE):
            yield Finding("problem", "weights", error.message, error.hint or "")
        else:
            fix = "sri eval --metrics fid downloads and verifies them"
            yield Finding("note", "weights", "the Inception weights for FID are not here", fix)
        return
    try:
        read_weights(path)
    except SriError as error:
        yield Finding("problem", "weights", error.message, error.hint or "")
    else:
        yield Finding("ok", "weights", f"Inception weights for FID: {path}")


def unusable(name: str, why: str) -> Finding:
    """torch or torchvision cannot be imported."""
    fix = pip_install("--force-reinstall", "torch", "torchvision")
    return Finding("problem", name, f"{name} cannot be used: {why[:300]}", fix, essential=True)


def gpu_errors() -> dict[str, str | None]:
    """The GPUs that torch sees; for each the error of a computation on it, or None."""
    import torch

    errors: dict[str, str | None] = {}
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        name = f"GPU {index}: {properties.name}, {properties.total_memory / 1e9:.0f} GB"
        errors[name] = None
        try:
            torch.ones(2, device=f"cuda:{index}").sum().item()
        except Exception as error:
            errors[name] = str(error)
    return errors


def check_devices(
    gpus: Mapping[str, str | None], driver_gpus: str | None, cuda: str | None
) -> Iterator[Finding]:
    """GPUs that torch can use (`gpus`, with errors), and those of the driver that it cannot.

    `cuda` is the version that torch is built for, None for CPUs alone.
    """
    from sri_cli.device import cpu_model

    fix = pip_install("--force-reinstall", "torch", "torchvision")
    for name, error in gpus.items():
        if error:
            yield Finding("problem", "device", f"{name} cannot compute: {error}", fix)
        else:
            yield Finding("ok", "device", name)
    if gpus:
        return
    if not driver_gpus:
        yield Finding("ok", "device", f"no GPU; the CPU is {cpu_model()}")
    elif cuda is None:
        text = f"{driver_gpus}: unused, because this torch is built for CPUs"
        yield Finding("note", "device", text, fix)
    else:
        text = f"{driver_gpus}: torch for CUDA {cuda} cannot use it"
        yield Finding("problem", "device", text, "update the driver, or unset CUDA_VISIBLE_DEVICES")


def version_of(name: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    result = json.dumps([asdict(finding) for finding in check_torch()])
    sys.stdout.write(f"\n{result}\n")  # libraries may print before
