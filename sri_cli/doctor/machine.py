"""The machine and what is installed on it, as far as that can be told without torch."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib import metadata, util
from pathlib import Path

from sri_cli import __version__
from sri_cli.doctor.findings import Finding, note, ok, problem

OLDEST, TRIED = (3, 11), (3, 13)  # Python
# Distribution -> module, of all that sri needs beside torch and torchvision.
MODULES = {
    "click": "click",
    "rich": "rich",
    "numpy": "numpy",
    "h5py": "h5py",
    "scipy": "scipy",
    "pytorch-fid": "pytorch_fid",
    "imageio": "imageio",
    "imageio-ffmpeg": "imageio_ffmpeg",
    "pyyaml": "yaml",
    "pydantic": "pydantic",
    "safetensors": "safetensors",
    "mujoco-core": "mujoco",
    "pillow": "PIL",
    "google-crc32c": "google_crc32c",
    "isal": "isal",
    "jinja2": "jinja2",
    "matplotlib": "matplotlib",
    "flask": "flask",
}
TOLD = ("numpy", "scipy", "h5py", "safetensors")
LITTLE_MEMORY = 4e9  # bytes
GROUP = Path("/sys/fs/cgroup")


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Iterator[Finding]:
    """sri and the Python that it runs in."""
    told = ".".join(map(str, version))
    where = f"sri {__version__}, Python {told} ({sys.executable})"
    wanted = f"{OLDEST[0]}.{OLDEST[1]} to {TRIED[0]}.{TRIED[1]}"
    remedy = f"python{TRIED[0]}.{TRIED[1]} -m venv .venv, and install sri there"
    if version[:2] < OLDEST:
        yield problem("python", f"{where} is too old: {wanted}", remedy, essential=True)
    elif version[:2] > TRIED:
        yield note("python", f"{where} is newer than what sri was tried with: {wanted}", remedy)
    else:
        yield ok("python", where)


def packages() -> Iterator[Finding]:
    """What sri needs to be installed, new enough, and in order."""
    found = [finding for name in MODULES if (finding := package(name))]
    yield from found
    if not found:
        told = ", ".join(f"{name} {version_of(name)}" for name in TOLD)
        yield ok("packages", f"{told} and {len(MODULES) - len(TOLD)} others")


def package(name: str) -> Finding | None:
    """What is wrong with it, if anything."""
    least = least_versions().get(name)
    wanted, version = f"{name}>={least}" if least else name, version_of(name)
    if util.find_spec(MODULES[name]) is None:
        return problem("packages", f"{name} is not installed", pip(wanted), essential=True)
    if version is not None and least is not None and older(version, least):
        words = f"{name} {version} is too old: {least} at least"
        return problem("packages", words, pip("--upgrade", wanted), essential=True)
    try:
        if name in TOLD:  # compiled, and everything is built on them
            importlib.import_module(MODULES[name])
    except Exception as error:
        words = f"{name} cannot be imported: {error}"
        return problem("packages", words, pip("--force-reinstall", wanted), essential=True)
    return None


def memory() -> Iterator[Finding]:
    """Cores and memory that this process may use."""
    cores, (free, total) = cores_here(), memory_here()
    words = f"{cores:g} core{'s' if cores != 1 else ''}"
    if total is None or free is None:
        yield note("memory", f"{words}; how much memory there is cannot be told")
        return
    words += f", {free / 1e9:.1f} of {total / 1e9:.1f} GB of memory free"
    if free < LITTLE_MEMORY:
        yield note("memory", f"{words}: little", "sri train ... train.batch=16, or close programs")
    else:
        yield ok("memory", words)


def compiler(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """What torch.compile needs: a C++ compiler and Python's headers."""
    asked = environment.get("CXX")
    names = [shlex.split(asked)[0]] if asked else ["g++", "clang++", "c++"]
    found = next((path for name in names if (path := shutil.which(name))), None)
    without = "steps are not compiled (train.compile=off)"
    if found is None:
        what = f"CXX={asked} is not there" if asked else "no C++ compiler"
        yield note("compiler", f"{what}: {without}", "apt install g++")
        return
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        words = f"{found}, but {header} is missing: {without}"
        yield note("compiler", words, "apt install python3-dev")
    else:
        yield ok("compiler", f"{found}, for train.compile")


def video() -> Iterator[Finding]:
    """The encoder of `sri walk`."""
    from sri_cli.plotting.video import missing_encoder

    why = missing_encoder()
    if why is not None:
        yield note("video", f"no MP4: {why}; sri walk writes GIF", "pip install imageio-ffmpeg")
    else:
        yield ok("video", "MP4 and GIF")


def display(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Whether `sri label-sacc` can open a browser here."""
    from sri_cli.labeling.app import far_from_browser

    if far_from_browser(environment):
        words = "no browser on this machine"
        yield note("display", words, "sri label-sacc prints the ssh command that forwards its page")
    else:
        yield ok("display", "sri label-sacc can open a browser")


def cores_here() -> float:
    """Cores, by affinity and by the container's share."""
    cores: float = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    cores = cores or os.cpu_count() or 1
    quota, _, period = _read(GROUP / "cpu.max").partition(" ")
    if quota.isdigit() and period.strip().isdigit():
        cores = min(cores, int(quota) / int(period))
    return cores


def memory_here() -> tuple[float | None, float | None]:
    """Free and all memory, bytes, by the system and by the container's limit; None: unknown."""
    told = dict(re.findall(r"^(\w+): +(\d+) kB", _read(Path("/proc/meminfo")), re.M))
    if not {"MemAvailable", "MemTotal"} <= told.keys():
        return None, None
    free, total = (1024.0 * int(told[key]) for key in ("MemAvailable", "MemTotal"))
    limit, used = (_read(GROUP / f"memory.{name}").strip() for name in ("max", "current"))
    if limit.isdigit() and int(limit) < total:
        total = float(limit)
        free = min(free, total - int(used)) if used.isdigit() else min(free, total)
    return free, total


def least_versions() -> dict[str, str]:
    """Distribution -> least version, as the installed sri says; nothing where it is a checkout."""
    try:
        required = metadata.requires("sri-cli") or []
    except metadata.PackageNotFoundError:
        return {}
    found = (re.match(r"([\w.-]+)\s*>=\s*([\d.]+)", line) for line in required)
    return {match[1].lower(): match[2] for match in found if match}


def version_of(name: str) -> str | None:
    """As the installer wrote it down; None when it is not known."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def older(version: str, least: str) -> bool:
    """Whether a version comes before another, by its numbers: 2.9.1+cpu before 2.10."""
    return numbers(version) < numbers(least)


def numbers(version: str) -> list[int]:
    """[2, 9, 1] of 2.9.1+cpu."""
    found = re.match(r"\d+(\.\d+)*", version)
    return [int(part) for part in found[0].split(".")] if found else []


def pip(*wanted: str) -> str:
    """The command that installs into this Python."""
    return shlex.join([sys.executable, "-m", "pip", "install", *wanted])


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""
