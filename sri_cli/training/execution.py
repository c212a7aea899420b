"""How a step is run: its arithmetic, whether it is compiled, whether it is one CUDA graph.

What `auto` takes on a CPU is what was measured to be the faster: bf16 where it is native, and no
compiler (compiled code won nothing there, after minutes of compiling). A GPU step is bound by the
launches of thousands of small kernels, so there it is compiled and replayed as one graph: a
judgement, until `sri bench gpu-suite` has measured all ways on one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sri_cli.device import Precision, choose_precision

if TYPE_CHECKING:
    from sri_cli.config.schema import TrainSection


@dataclass(frozen=True)
class ExecutionMode:
    """`must_compile`: a compiler that fails is an error and not a reason to do without."""

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
    wanted = settings.compile
    return ExecutionMode(
        choose_precision(settings.precision, device),
        compiled=wanted == "on" or (wanted == "auto" and on_gpu),
        graphed=on_gpu and wanted != "off",
        must_compile=wanted == "on",
    )


Explain = Callable[[Tensor, Mapping[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]


class Compiled:
    """`explain` as compiled code; where the compiler fails, `give_up` is told and it runs as is.

    Compiling ends before the first operation runs, so nothing is done twice.
    """

    def __init__(self, explain: Explain, give_up: Callable[[Exception], None]) -> None:
        from torch._functorch import config as functorch_config

        self.explain, self.give_up = explain, give_up
        # The backward pass is compiled with the forward one, so that it cannot fail later.
        if hasattr(functorch_config, "force_non_lazy_backward_lowering"):
            functorch_config.force_non_lazy_backward_lowering = True
        self.compiled: Any = torch.compile(explain, fullgraph=True, dynamic=False)

    def __call__(
        self, images: Tensor, noise: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
        from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

        try:
            return self.compiled(images, noise)
        except (
            TorchDynamoException,
            FailOnRecompileLimitHit,
            CppCompileError,
            InvalidCxxCompiler,
        ) as error:
            self.give_up(error)
            return self.explain(images, noise)
