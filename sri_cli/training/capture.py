"""A step as one CUDA graph: recorded once, then replayed by a single call of the host."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

import torch
from torch import Tensor

Body = Callable[[Tensor, Mapping[str, Tensor]], None]
WARM_UP_STEPS = 3  # run as they are: kernels are chosen, the optimiser's state is made


class CaptureFailed(RuntimeError):
    """The step could not be recorded; nothing of it was run."""


class CapturedStep:
    """Runs `body(images, noise)`, whose inputs keep their shapes, from a recording of it.

    `body` must keep all that it changes in tensors of its own and read nothing back. What else
    decides its course is the `phase`: each has a graph of its own. A recording changes nothing, so
    the step that is recorded is run by the first replay.
    """

    def __init__(self, body: Body, before_capture: Callable[[], None]) -> None:
        """`before_capture` drops what the recording must allocate for itself: gradients."""
        self.body, self.before_capture = body, before_capture
        self.images = torch.empty(0)
        self.noise: dict[str, Tensor] = {}
        self.graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self.warmed: dict[Hashable, int] = {}
        self.failed: torch.cuda.CUDAGraph | None = None
        self.stream: torch.cuda.Stream | None = None

    def __call__(self, images: Tensor, noise: Mapping[str, Tensor], phase: Hashable) -> None:
        """One step of this phase; CaptureFailed where it cannot be recorded."""
        if phase not in self.graphs:
            if self.warmed.get(phase, 0) < WARM_UP_STEPS:
                self.warmed[phase] = self.warmed.get(phase, 0) + 1
                self._beside(images, noise)
                return
            self._record(images, noise, phase)
        self.images.copy_(images)
        for name, buffer in self.noise.items():
            buffer.copy_(noise[name])
        self.graphs[phase].replay()

    def close(self) -> None:
        """Give back the recordings: a process group ends after those that speak through it."""
        for graph in self.graphs.values():
            graph.reset()
        self.graphs.clear()

    def _beside(self, images: Tensor, noise: Mapping[str, Tensor]) -> None:
        """A step in a stream other than the default one, as a recording wants it."""
        self.stream = self.stream or torch.cuda.Stream()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.body(images, noise)
        torch.cuda.current_stream().wait_stream(self.stream)

    def _record(self, images: Tensor, noise: Mapping[str, Tensor], phase: Hashable) -> None:
        if not self.noise:
            self.images = torch.empty_like(images)
            self.noise = {name: torch.empty_like(value) for name, value in noise.items()}
        self.before_capture()
        self.close()  # a phase that is over does not come again
        before = torch.cuda.current_stream()
        graph = torch.cuda.CUDAGraph()
        # The thread that feeds the next step pins memory meanwhile, which only a global capture
        # would forbid.
        try:
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.body(self.images, self.noise)
        except RuntimeError as error:
            torch.cuda.set_stream(
                before
            )  # older versions of PyTorch leave the recording's in place
            self.failed = graph  # and their allocator may still point to what was not finished
            raise CaptureFailed(cause_of(error)) from error
        self.graphs[phase] = graph


def cause_of(error: BaseException) -> str:
    """The first line of the error that came first: a broken recording raises another on top."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
