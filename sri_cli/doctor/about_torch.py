"""torch, torchvision, devices, bf16 and weights: what another process found, as findings."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import sri_cli
from sri_cli.doctor.findings import Finding, note, ok, problem
from sri_cli.doctor.machine import numbers, older, pip, version_of

OLDEST = "2.10"
PATIENCE_SEC = 120.0
INDEX = "https://download.pytorch.org/whl"
REINSTALL = ("--force-reinstall", f"torch>={OLDEST}", "torchvision")

Probe = subprocess.Popen[str]


def start_probe() -> Probe:
    """`probe.py` in this Python, with the modules that this process would import."""
    package = str(Path(sri_cli.__file__).parent.parent)  # last: what is before it counts as here
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), package]))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "sri_cli.doctor.probe"],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def torch_findings(process: Probe, patience: float = PATIENCE_SEC) -> Iterator[Finding]:
    """All that torch can tell; that it cannot be imported is one of them."""
    yield from mismatch(version_of("torch"), version_of("torchvision"), torch_wanted())
    facts = answer(process, patience)
    if "error" in facts:
        words = f"torch cannot be used: {facts['error']}"
        yield problem("torch", words, pip(*REINSTALL), essential=True)
        return
    yield from versions(facts)
    yield from devices(facts, installed_gpus())
    yield from arithmetic(facts)
    yield from weights(facts)


def answer(process: Probe, patience: float) -> dict[str, Any]:
    """What the probe said, or {"error": why it said nothing}."""
    try:
        said, complained = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"error": f"importing it takes more than {patience:.0f} s"}
    lines = said.strip().splitlines()
    try:
        facts: dict[str, Any] = json.loads(lines[-1])
        return facts
    except (IndexError, ValueError):
        last = (complained.strip().splitlines() or ["it said nothing"])[-1]
        code = process.returncode
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return {"error": f"importing it fails ({how}): {last[:300]}"}


def mismatch(torch: str | None, vision: str | None, wanted: str | None) -> Iterator[Finding]:
    """torchvision is built for one version of torch (`wanted`), and fails with every other."""
    if torch is None or vision is None or wanted is None or numbers(torch) == numbers(wanted):
        return
    yield problem(
        "torchvision",
        f"torchvision {vision} belongs to torch {wanted}, and there is torch {torch}",
        pip("--upgrade", f"torch>={OLDEST}", "torchvision"),
        essential=True,
    )


def torch_wanted() -> str | None:
    """The version of torch that the installed torchvision asks for."""
    try:
        required = metadata.requires("torchvision") or []
    except metadata.PackageNotFoundError:
        return None
    found = (re.match(r"torch\s*\(?==\s*([\d.]+)", line) for line in required)
    return next((match[1] for match in found if match), None)


def versions(facts: dict[str, Any]) -> Iterator[Finding]:
    """torch and torchvision, imported."""
    version = facts["torch"]
    if older(version, OLDEST):
        words = f"torch {version} is too old: {OLDEST} at least"
        yield problem("torch", words, pip("--upgrade", f"torch>={OLDEST}", "torchvision"), True)
    else:
        yield ok("torch", f"torch {version}")
    if "torchvision_error" in facts:
        words = f"torchvision cannot be used: {facts['torchvision_error']}"
        yield problem("torchvision", words, pip(*REINSTALL), essential=True)
    else:
        yield ok("torchvision", f"torchvision {facts['torchvision']}")


def devices(facts: dict[str, Any], there: list[str]) -> Iterator[Finding]:
    """GPUs: those that torch can use, and `there`, those that the driver shows."""
    cuda = facts["cuda"] or facts["hip"]
    for gpu in facts["gpus"]:
        words = f"{gpu['name']}, {gpu['memory'] / 1e9:.0f} GB, CUDA {cuda}"
        if gpu["error"]:
            yield problem("device", f"{words}, cannot compute: {gpu['error']}", "nvidia-smi")
        else:
            yield ok("device", words)
    if facts["gpus"]:
        return
    if not there:
        yield ok("device", f"no GPU; the CPU: {facts.get('bf16', {}).get('cpu', 'unknown')}")
    elif cuda is None:
        words = f"{'; '.join(there)}: not used, for this torch is built for CPUs alone"
        remedy = pip("--force-reinstall", "torch", "torchvision", "--index-url", f"{INDEX}/cu126")
        yield note("device", words, remedy)
    else:
        words = f"{'; '.join(there)}: torch for CUDA {cuda} cannot use it"
        yield problem("device", words, "update the driver, or unset CUDA_VISIBLE_DEVICES")


def installed_gpus() -> list[str]:
    """Name and driver of the GPUs of this machine, as nvidia-smi tells them."""
    words = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [", driver ".join(line.split(", ")) for line in said.splitlines() if line.strip()]


def arithmetic(facts: dict[str, Any]) -> Iterator[Finding]:
    """bf16."""
    found = facts.get("bf16")
    if found is None:
        yield problem("bf16", f"cannot be told: {facts.get('bf16_error')}")
    elif found["native"]:
        yield ok("bf16", f"native on this {found['device']}: train.precision=auto takes it")
    else:
        words = f"only emulated on this {found['device']}, which is slow"
        yield ok("bf16", f"{words}: train.precision=auto takes fp32")


def weights(facts: dict[str, Any]) -> Iterator[Finding]:
    """The Inception weights of FID."""
    found = facts.get("weights")
    if found is None:
        yield problem("weights", f"cannot be told: {facts.get('weights_error')}")
    elif found["error"] is None:
        yield ok("weights", f"Inception weights of FID: {found['path']}")
    elif found["path"] is None and not found["named"]:
        yield note("weights", found["error"], "sri eval --metrics fid fetches and verifies them")
    else:
        yield problem("weights", found["error"], found["hint"] or "")
