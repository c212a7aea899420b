"""kernels.cpp, compiled for this processor where there is a C++ compiler.

The library is kept in the user's cache folder under the hash of its source, the compiler and the
processor, so that a machine compiles it once, in about two seconds. Where it cannot be compiled,
loaded or kept, PyTorch's operations do the same work.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sri_cli.device import cpu_flags, cpu_model

SOURCE = Path(__file__).with_name("kernels.cpp")
# Not -ffast-math: it would change denormal numbers in the whole process, and lose NaN.
FLAGS = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp"]
WIDE = "-mprefer-vector-width=512"  # where there is AVX-512, of which GCC uses half by default
SECONDS = 60  # at most
POINTER = ctypes.CFUNCTYPE(None)
SUFFIXES = {torch.float32: "float", torch.bfloat16: "bf16"}


class Kernels(NamedTuple):
    """The compiled functions; `seconds`: of compiling, 0 if they were kept."""

    library: ctypes.CDLL
    seconds: float


def call(name: str, like: Tensor, *arguments: int | float | Tensor) -> None:
    """`name` of `kernels()` for the type of `like`; tensors are contiguous."""
    compiled = kernels()
    assert compiled is not None
    function = POINTER.in_dll(compiled.library, f"{name}_{SUFFIXES[like.dtype]}")
    function(*map(_as_c, arguments), ctypes.c_int(torch.get_num_threads()))


def _as_c(value: int | float | Tensor) -> ctypes.c_long | ctypes.c_float | ctypes.c_void_p:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_long(value)


@functools.cache
def kernels() -> Kernels | None:
    """The compiled kernels; None where there is no compiler that makes them."""
    names = (os.environ.get("CXX", "c++"), "g++", "clang++")
    compiler = next(filter(None, map(shutil.which, names)), None)
    if compiler is None:
        return None
    flags = [*FLAGS, WIDE] if "avx512f" in cpu_flags() else FLAGS
    parts = [SOURCE.read_text("utf-8"), *flags, compiler, cpu_model(), *sorted(cpu_flags())]
    digest = hashlib.sha256("\n".join([*parts, platform.machine()]).encode()).hexdigest()
    began = time.perf_counter()
    try:  # there may be no home folder, or one that cannot be entered
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sri"
        path = cache / f"kernels-{digest[:16]}.so"
        if path.exists():
            with contextlib.suppress(OSError):  # a damaged file is made anew
                return Kernels(ctypes.CDLL(str(path)), 0.0)
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            made = Path(folder) / path.name
            command = [compiler, *flags, "-shared", "-fPIC", str(SOURCE), "-o", str(made)]
            subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
            os.replace(made, path)
        return Kernels(ctypes.CDLL(str(path)), time.perf_counter() - began)
    except (OSError, RuntimeError, subprocess.SubprocessError):
        return None
