"""What only torch can tell, as one line of JSON: `python -m sri_cli.doctor.probe`.

A process of its own, because a broken torch may crash or hang, and is then told as a finding.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def probe() -> dict[str, Any]:
    """Versions, devices, bf16, weights; errors as words."""
    try:
        import torch

        torch.ones(2).sum().item()
    except BaseException as error:
        return {"error": told(error)}
    facts: dict[str, Any] = {"torch": torch.__version__, **devices()}
    try:
        import torchvision
        import torchvision.ops  # noqa: F401 (its compiled part)

        facts["torchvision"] = torchvision.__version__
    except BaseException as error:
        facts["torchvision_error"] = told(error)
    for name, ask in {"bf16": bf16, "weights": weights}.items():
        try:
            facts[name] = ask()
        except BaseException as error:
            facts[f"{name}_error"] = told(error)
    return facts


def devices() -> dict[str, Any]:
    """GPUs that torch can use, and the CUDA that it was built for (None: none)."""
    import torch

    versions: Any = torch.version
    found = {"cuda": versions.cuda, "hip": versions.hip, "gpus": []}
    if not torch.cuda.is_available():
        return found
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        facts = {"name": gpu.name, "memory": gpu.total_memory, "error": None}
        try:
            torch.ones(2, device=f"cuda:{index}").sum().item()
        except BaseException as error:
            facts["error"] = told(error)
        found["gpus"].append(facts)
    return found


def bf16() -> dict[str, Any]:
    """Whether the device that training takes computes it natively."""
    from sri_cli.device import choose_device, cpu_model, has_native_bf16

    device = choose_device()
    return {"device": device.type, "native": has_native_bf16(device), "cpu": cpu_model()}


def weights() -> dict[str, Any]:
    """Where the Inception weights are and whether they are the right ones; nothing is fetched."""
    from sri_cli.errors import SriError
    from sri_cli.metrics.inception_weights import VARIABLE, find_weights, read_weights

    path = None
    try:
        path = find_weights(offline=True)
        read_weights(path)
    except SriError as error:
        return {
            "path": None if path is None else str(path),
            "named": bool(os.environ.get(VARIABLE)),
            "error": error.message.removeprefix("--offline: "),
            "hint": error.hint,
        }
    return {"path": str(path), "error": None}


def told(error: BaseException) -> str:
    """An error in a line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


if __name__ == "__main__":
    facts = probe()
    sys.stdout.write("\n" + json.dumps(facts) + "\n")
