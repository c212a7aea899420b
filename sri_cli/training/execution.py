"""How a training step is executed: its precision, compiled or not, as one CUDA graph or not.

`auto` on a CPU takes what was measured to be faster: bf16 where it is native, and no compiler,
which won nothing there after minutes of compiling. A GPU step is bound by the launches of
thousands of small kernels, so there it is compiled and replayed as one graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sri_cli.device import Precision, choose_precision
from sri_cli.training.schedule import Phase

if TYPE_CHECKING:
    from sri_cli.config.schema import TrainSection

WARM_UP_STEPS = 3  # run before the capture: kernels are chosen, Adam's state is created
Body = Callable[[Tensor, Mapping[str, Tensor], Phase], None]


@dataclass(frozen=True)
class ExecutionMode:
    """`must_compile`: a compiler that fails is an error, not a reason to run uncompiled."""

    precision: Precision = "fp32"
    compiled: bool = False
    graphed: bool = False
    must_compile: bool = False

    def __str__(self) -> str:
        extras = [", compiled"] * self.compiled + [", as one CUDA graph"] * self.graphed
        return self.precision + "".join(extras)


def choose_mode(settings: TrainSection, device: torch.device) -> ExecutionMode:
    """The recipe's `train.precision` and `train.compile` on this device."""
    on_gpu = device.type == "cuda"
    return ExecutionMode(
        choose_precision(settings.precision, device),
        compiled=settings.compile == "on" or (settings.compile == "auto" and on_gpu),
        graphed=on_gpu and settings.compile != "off",
        must_compile=settings.compile == "on",
    )


def compile_whole(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled as a single graph, with its backward pass.

    The first call compiles, and raises one of `compiler_errors()` before any operation runs.
    """
    from torch._functorch import config

    config.force_non_lazy_backward_lowering = True  # so that the backward pass cannot fail later
    return torch.compile(function, fullgraph=True, dynamic=False)


def compiler_errors() -> tuple[type[Exception], ...]:
    """What a compiled function raises when it cannot be compiled."""
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    return TorchDynamoException, FailOnRecompileLimitHit, CppCompileError, InvalidCxxCompiler


class CaptureFailed(RuntimeError):
    """The step could not be captured; nothing of it was run."""


class CapturedStep:
    """Runs `body(images, noise, phase)` by replaying a CUDA graph of it.

    All that the body changes must be in tensors of its own, and it must read nothing back. A new
    phase is captured anew. A capture changes nothing: the captured step is run by the first replay.
    """

    def __init__(self, body: Body, before_capture: Callable[[], None]) -> None:
        """`before_capture` frees what the graph must allocate itself: gradients."""
        self.body, self.before_capture = body, before_capture
        self.images = torch.empty(0)
        self.noise: dict[str, Tensor] = {}
        self.graphs: dict[Phase, torch.cuda.CUDAGraph] = {}
        self.warmed: dict[Phase, int] = {}
        self.failed: torch.cuda.CUDAGraph | None = None
        self.stream: torch.cuda.Stream | None = None

    def __call__(self, images: Tensor, noise: Mapping[str, Tensor], phase: Phase) -> None:
        """One step; CaptureFailed when it cannot be captured."""
        if phase not in self.graphs:
            if self.warmed.get(phase, 0) < WARM_UP_STEPS:
                self.warmed[phase] = self.warmed.get(phase, 0) + 1
                self._warm_up(images, noise, phase)
                return
            self._capture(images, noise, phase)
        self.images.copy_(images)
        for name, buffer in self.noise.items():
            buffer.copy_(noise[name])
        self.graphs[phase].replay()

    def close(self) -> None:
        """Free the graphs; those that use a process group must go before it."""
        for graph in self.graphs.values():
            graph.reset()
        self.graphs.clear()

    def _warm_up(self, images: Tensor, noise: Mapping[str, Tensor], phase: Phase) -> None:
        """A step outside the default stream, as a capture requires."""
        self.stream = self.stream or torch.cuda.Stream()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.body(images, noise, phase)
        torch.cuda.current_stream().wait_stream(self.stream)

    def _capture(self, images: Tensor, noise: Mapping[str, Tensor], phase: Phase) -> None:
        if not self.noise:
            self.images = torch.empty_like(images)
            self.noise = {name: torch.empty_like(value) for name, value in noise.items()}
        self.before_capture()
        self.close()  # phases do not return
        stream, graph = torch.cuda.current_stream(), torch.cuda.CUDAGraph()
        # Meanwhile the thread that prefetches the next step pins memory, which a capture in the
        # mode "global" would forbid.
        try:
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.body(self.images, self.noise, phase)
        except RuntimeError as error:
            torch.cuda.set_stream(stream)  # PyTorch may leave that of the capture
            self.failed = graph  # kept: the allocator may still point to what is unfinished
            raise CaptureFailed(first_cause(error)) from error
        self.graphs[phase] = graph


def first_cause(error: BaseException) -> str:
    """The first line of the first error: an aborted capture raises another one on top."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
