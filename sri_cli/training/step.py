"""One training step: losses, GECO, gradients, Adam. Nothing in it waits for the device.

Axis legend: B batch, b a rank's rows of it, H W image rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sri_cli.device import keep_freed_memory
from sri_cli.errors import SriFailure
from sri_cli.models.base import Losses, SlotVAE
from sri_cli.training.capture import CapturedStep, CaptureFailed
from sri_cli.training.distributed import Ranks, spread_statistics
from sri_cli.training.execution import Compiled, ExecutionMode
from sri_cli.training.geco import make_gecos
from sri_cli.training.schedule import check_refinements, learning_rate, refinement_steps

if TYPE_CHECKING:
    from sri_cli.config.schema import TrainSection


Phase = tuple[bool, int]  # explaining the blend, refinement steps


class TrainStep:
    """A model with one GECO per objective and fused Adam.

    A step whose gradients are not finite changes nothing and is only counted. Metrics add up on
    the device until `read_metrics` fetches their means. With several `ranks` every process makes
    the step together with the others, on its rows of the batch.
    """

    def __init__(
        self,
        model: SlotVAE,
        settings: TrainSection,
        device: torch.device | str = "cpu",
        mode: ExecutionMode | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        keep_freed_memory()
        self.device = torch.device(device)
        self.settings = settings
        self.mode, self.ranks = mode or ExecutionMode(), ranks or Ranks()
        self.share = self.ranks.share_of(settings.batch)
        # to(memory_format=...) touches 4-d weights only, which are the convolutions'.
        self.model = model.to(self.device).to(memory_format=torch.channels_last).train()
        self.notes: list[str] = []  # what a user should hear of
        if self.mode.compiled and self.model.matches_on_host:
            self.notes.append("Note: the host matches the slots: no compiled step, no CUDA graph")
            self.mode = ExecutionMode(self.mode.precision)
        spread_statistics(self.model, self.ranks)
        self.gecos = make_gecos(self.model, settings).to(self.device)
        self.refinement = self.model.refinement
        check_refinements(self.refinement.most if self.refinement else 0, settings)
        self.gaussian_likelihood = False  # of the warm-up
        self._tell_weight()
        # All that a step may move and that is no parameter: multipliers, running statistics.
        kept = self.model.state_dict().keys()
        moving = [buffer for name, buffer in self.model.named_buffers() if name in kept]
        self.moving = [*self.gecos.buffers(), *moving]
        self.params = [p for p in self.model.parameters() if p.requires_grad]
        self.lr = torch.tensor(float(settings.lr), device=self.device)
        self.optimiser = torch.optim.Adam(
            self.params, lr=self.lr, fused=True, capturable=self.mode.graphed
        )
        # It would warn of the steps that run before the recording.
        self.optimiser._warned_capturable_if_run_uncaptured = True
        self.metrics = Metrics(self.device)
        self.compiled = Compiled(self._explain, self._do_without) if self.mode.compiled else None
        self.captured = (
            CapturedStep(self._body, self._drop_gradients) if self.mode.graphed else None
        )
        self.replays = self.captured is not None

    def __call__(self, images: Tensor, noise: Mapping[str, Tensor], step: int) -> None:
        """images uint8 [b,3,H,W], this rank's rows; `step` from 0 sets the learning rate."""
        self.lr.fill_(learning_rate(self.settings, step))
        phase = self.follow_schedule(step)
        if self.captured is not None and self.replays:
            self._replay(self.captured, images, noise, phase)
        else:
            self._body(images, noise)
        self.metrics.steps += 1

    def close(self) -> None:
        """Let go of compiled code and recordings; the step is over."""
        if self.captured is not None:
            torch.cuda.synchronize(self.device)
            self.captured.close()
        self.compiled = self.captured = None

    def _replay(
        self, captured: CapturedStep, images: Tensor, noise: Mapping[str, Tensor], phase: Phase
    ) -> None:
        try:
            captured(images, noise, phase)
        except CaptureFailed as error:
            self.notes.append(f"Note: not as one CUDA graph: {error}")
            self.replays = False  # what failed is kept: it may still be pointed to
            self._body(images, noise)

    def _body(self, images: Tensor, noise: Mapping[str, Tensor]) -> None:
        """The step itself; all that it changes is tensors, so that it can be recorded."""
        before = [buffer.clone() for buffer in self.moving]
        loss, values = (self.compiled or self._explain)(images, noise)
        self._drop_gradients()
        loss.backward()
        values = self.ranks.sum_up(self.params, values)
        self._move_gecos(values)
        norm = self._gradient_norm()
        finite = torch.isfinite(norm) & torch.isfinite(values["loss"])
        self._update(finite, before)
        self.metrics.add(values | {"grad_norm": norm}, finite)

    def _explain(
        self, images: Tensor, noise: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """This rank's share of the loss, and of all that the log and GECO want: scalars."""
        losses = self.forward(images, noise)
        loss = self.constrained_loss(losses)
        values = {name: term.mean() for name, term in losses.terms.items()}
        for objective in losses.objectives:
            values[f"error/{objective.name}"] = objective.error.float().mean()
            values[f"kl/{objective.name}"] = objective.kl.mean()
        values = {name: value.detach() for name, value in (values | {"loss": loss}).items()}
        if self.ranks.world == 1:
            return loss, values
        return self.share * loss, {name: self.share * value for name, value in values.items()}

    def forward(self, images: Tensor, noise: Mapping[str, Tensor]) -> Losses:
        """uint8 images -> the model's losses, in the precision of this run."""
        bf16 = self.mode.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
            return self.model(to_float(images, self.device), noise, self.gaussian_likelihood)

    def constrained_loss(self, losses: Losses) -> Tensor:
        """The sum of every objective under its GECO."""
        parts = [self.gecos[objective.name](objective) for objective in losses.objectives]
        return torch.stack(parts).sum()

    def read_metrics(self) -> dict[str, float]:
        """Means since the last call, then starts again. Waits for the device."""
        states = {
            f"{what}/{name}": float(value)
            for name, geco in self.gecos.items()
            for what, value in geco.report().items()  # type: ignore[operator]
        }
        return self.metrics.read() | states

    def state(self) -> dict[str, Any]:
        """What must be kept beside the weights: builtins and tensors only."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "gecos": dict(self.gecos.state_dict()),
            "metrics": self.metrics.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up `state()` of an earlier run; the learning rate stays this run's."""
        if self.captured is not None and self.captured.graphs:
            raise RuntimeError("a recorded step replays into the tensors that it was recorded with")
        self.gecos.load_state_dict(state["gecos"])
        self.optimiser.load_state_dict(state["optimiser"])
        for group in self.optimiser.param_groups:
            group["lr"], group["capturable"] = self.lr, self.mode.graphed
        self.metrics.load_state(state["metrics"])
        self._tell_weight()

    def follow_schedule(self, step: int) -> Phase:
        """What a recipe changes in the model in the course of a training, as of this step."""
        self.gaussian_likelihood = step < self.settings.gaussian_warmup_steps
        if self.refinement is None:
            return self.gaussian_likelihood, 0
        self.refinement.steps = refinement_steps(self.settings, step, self.refinement.most)
        self.refinement.batch = self.settings.batch
        return self.gaussian_likelihood, self.refinement.steps

    @torch.no_grad()
    def _tell_weight(self) -> None:
        """The gradient that refines a posterior is that of the loss, so it follows its GECO."""
        if self.refinement is not None:
            geco: Any = self.gecos[self.model.objective_names[0]]
            self.refinement.error_weight.copy_(geco.error_weight())

    def _move_gecos(self, values: Mapping[str, Tensor]) -> None:
        for name, geco in self.gecos.items():
            geco.move(values[f"error/{name}"])  # type: ignore[operator]
        self._tell_weight()

    def _drop_gradients(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)

    def _do_without(self, error: Exception) -> None:
        """The compiler fails: SriFailure where it was asked for, else a note.

        Ranks may differ in this: compiled or not, they come to the same sums.
        """
        reason = str(error).strip().partition("\n")[0]
        if self.mode.must_compile:
            raise SriFailure(f"train.compile=on: {reason}", "train.compile=off") from error
        self.notes.append(f"Note: not compiled: {reason}")
        self.compiled = None

    def _gradient_norm(self) -> Tensor:
        grads = [p.grad for p in self.params if p.grad is not None]
        norm = nn.utils.get_total_norm(grads, foreach=True)
        if self.settings.clip_grad is not None:
            nn.utils.clip_grads_with_norm_(self.params, self.settings.clip_grad, norm, foreach=True)
        return norm

    @torch.no_grad()
    def _update(self, finite: Tensor, moving_before: list[Tensor]) -> None:
        # Fused Adam leaves everything as it was where found_inf is 1, without a host read.
        self.optimiser.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self.optimiser.grad_scale = None  # type: ignore[attr-defined]
        self.optimiser.step()
        for buffer, before in zip(self.moving, moving_before, strict=True):
            buffer.copy_(torch.where(finite, buffer, before))


class Metrics:
    """Sums over the finite steps, kept on the device; `steps` of all is the host's own count.

    Every rank has the sums over all ranks.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.names: tuple[str, ...] = ()
        self.sums = torch.zeros(0, device=device)
        self.good = torch.zeros((), device=device)
        self.steps = 0

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor], finite: Tensor) -> None:
        """values: scalars by name, the same names in every call."""
        row = torch.stack([value.detach().float() for value in values.values()])
        if not self.names:
            self.names, self.sums = tuple(values), torch.zeros_like(row)
        self.sums += torch.where(finite, row, 0.0)
        self.good += finite

    def state(self) -> dict[str, Any]:
        """The sums of a window that a stop cuts in two."""
        return {
            "names": list(self.names),
            "sums": self.sums.clone(),
            "good": self.good.clone(),
            "steps": self.steps,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on with the window of `state()`."""
        self.names, self.steps = tuple(state["names"]), state["steps"]
        self.sums, self.good = state["sums"].to(self.device), state["good"].to(self.device)

    def read(self) -> dict[str, float]:
        """Means over the finite steps (NaN without any) and the count of skipped ones."""
        good = float(self.good)
        sums: list[float] = self.sums.tolist()
        means = {n: s / good if good else math.nan for n, s in zip(self.names, sums, strict=True)}
        skipped = self.steps - round(good)
        self.sums.zero_()
        self.good.zero_()
        self.steps = 0
        return means | {"skipped": skipped}


def to_float(images: Tensor, device: torch.device | str) -> Tensor:
    """uint8 [B,3,H,W] -> float32 in [0,1] on the device, channels_last."""
    moved = images.to(device, non_blocking=True)
    return moved.to(torch.float32, memory_format=torch.channels_last).div_(255)
