"""One training step: losses, GECO, gradients, Adam. Nothing in it waits for the device.

Axis legend: b this rank's rows of the global batch, H W image rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from sri_cli.device import keep_freed_memory
from sri_cli.errors import SriFailure
from sri_cli.models.base import Losses, SlotVAE
from sri_cli.models.compiled import kernels
from sri_cli.training.distributed import Ranks
from sri_cli.training.execution import (
    CapturedStep,
    CaptureFailed,
    ExecutionMode,
    compile_whole,
    compiler_errors,
)
from sri_cli.training.geco import EmorlGeco, Geco, make_gecos
from sri_cli.training.schedule import Phase, learning_rate, phase_at, sinkhorn_temperature

if TYPE_CHECKING:
    from sri_cli.config.schema import TrainSection


class TrainStep:
    """A model with one GECO per objective and fused Adam; call it to make a step.

    A step whose gradients are not finite changes nothing and is only counted. Metrics are summed
    on the device until `read_metrics` fetches their means. With several `ranks` all processes make
    the step together, each with its rows of the batch.
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
        self.device, self.settings = torch.device(device), settings
        self.mode, self.ranks = mode or ExecutionMode(), ranks or Ranks()
        self.share = self.ranks.share_of(settings.batch)
        # to(memory_format=...) changes 4-d weights only, which are those of convolutions.
        self.model = model.to(self.device).to(memory_format=torch.channels_last).train()
        self.notes: list[str] = []  # for the user
        compiled = kernels() if self.device.type == "cpu" else None
        if compiled is not None and compiled.seconds:
            seconds = f"{compiled.seconds:.1f} s"
            self.notes.append(f"Note: compiled for this processor in {seconds}, once")
        if self.mode.compiled and self.model.matches_on_host:
            self.notes.append("Note: slots are matched on the CPU: not compiled, no CUDA graph")
            self.mode = ExecutionMode(self.mode.precision)
        self.gecos = make_gecos(self.model, settings).to(self.device)
        self._pass_weight_to_refinement()
        # What a step changes besides parameters: multipliers and running statistics.
        saved = self.model.state_dict().keys()
        statistics = [buffer for name, buffer in self.model.named_buffers() if name in saved]
        self.changing = [*self.gecos.buffers(), *statistics]
        self.params = [p for p in self.model.parameters() if p.requires_grad]
        self.lr = torch.tensor(float(settings.lr), device=self.device)
        self.optimiser = torch.optim.Adam(
            self.params, lr=self.lr, fused=True, capturable=self.mode.graphed
        )
        # It would warn about the steps before the capture.
        self.optimiser._warned_capturable_if_run_uncaptured = True
        self.metrics = Metrics(self.device)
        self.compiled = compile_whole(self._loss) if self.mode.compiled else None
        before_capture = self.optimiser.zero_grad
        self.captured = CapturedStep(self._body, before_capture) if self.mode.graphed else None

    def __call__(self, images: Tensor, noise: Mapping[str, Tensor], step: int) -> None:
        """Train on images uint8 [b,3,H,W] of the device; `step`, from 0, sets rate and phase."""
        self.lr.fill_(learning_rate(self.settings, step))
        phase = self.set_phase(step)
        if self.captured is not None and self.captured.failed is None:
            try:
                self.captured(images, noise, phase)
            except CaptureFailed as error:
                self.notes.append(f"Note: not as one CUDA graph: {error}")
                self._body(images, noise, phase)
        else:
            self._body(images, noise, phase)
        self.metrics.steps += 1

    def close(self) -> None:
        """Free compiled code and captured graphs; the step cannot be used afterwards.

        Other steps of this process would be compiled again.
        """
        if self.captured is not None:
            torch.cuda.synchronize(self.device)
            self.captured.close()
        if self.mode.compiled:  # PyTorch refuses more than 8 variants of a function
            from torch._dynamo.eval_frame import reset_code

            reset_code(TrainStep._loss.__code__)
        self.compiled = self.captured = None

    def set_phase(self, step: int) -> Phase:
        """Set what the schedule says for training step `step` in the model.

        Refinement steps are saved with it.
        """
        self.model.matching_temperature.fill_(sinkhorn_temperature(self.settings, step))
        self.model.end_to_end_share.fill_(float(step >= self.settings.end_to_end_from))
        refinement = self.model.refinement
        phase = phase_at(self.settings, step, refinement.most if refinement else 0)
        if refinement is not None:
            refinement.steps, refinement.batch = phase.refinements, self.settings.batch
        return phase

    def _body(self, images: Tensor, noise: Mapping[str, Tensor], phase: Phase) -> None:
        """The step itself. It changes nothing but tensors, so that it can be captured."""
        before = [buffer.clone() for buffer in self.changing]
        loss, values = self._loss_and_values(images, noise, phase.gaussian_likelihood)
        self.optimiser.zero_grad()
        loss.backward()
        values = self.ranks.sum_up(self.params, values)
        for name, geco in self._gecos().items():
            geco.update(values[f"error/{name}"])
        self._pass_weight_to_refinement()
        norm = self._clip_gradients()
        finite = torch.isfinite(norm) & torch.isfinite(values["loss"])
        self._update(finite, before)
        self.metrics.add(values | {"grad_norm": norm}, finite)

    def _loss_and_values(
        self, images: Tensor, noise: Mapping[str, Tensor], gaussian: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """`_loss`, compiled where it can be. Ranks may differ in this."""
        if self.compiled is not None:
            try:
                return self.compiled(images, noise, gaussian)
            except compiler_errors() as error:
                reason = str(error).strip().partition("\n")[0]
                if self.mode.must_compile:
                    raise SriFailure(f"train.compile=on: {reason}", "train.compile=off") from error
                self.notes.append(f"Note: not compiled: {reason}")
                self.compiled = None
        return self._loss(images, noise, gaussian)

    def _loss(
        self, images: Tensor, noise: Mapping[str, Tensor], gaussian: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """This rank's share of the loss, and of the scalars for the log and for GECO."""
        inputs = images.to(torch.float32, memory_format=torch.channels_last).div_(255)
        bf16 = self.mode.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
            losses: Losses = self.model(inputs, noise, gaussian)
        loss = torch.stack([self.gecos[o.name](o) for o in losses.objectives]).sum()
        values = {name: term.mean() for name, term in losses.terms.items()}
        for objective in losses.objectives:
            values[f"error/{objective.name}"] = objective.error.float().mean()
            values[f"kl/{objective.name}"] = objective.kl.mean()
        values = {name: value.detach() for name, value in (values | {"loss": loss}).items()}
        if self.ranks.world == 1:
            return loss, values
        return self.share * loss, {name: self.share * value for name, value in values.items()}

    def read_metrics(self) -> dict[str, float]:
        """Means since the last call. Waits for the device."""
        metrics = self.peek_metrics()
        self.metrics.reset()
        return metrics

    def peek_metrics(self) -> dict[str, float]:
        """As `read_metrics`, which the next call includes again."""
        reports = {
            f"{value_name}/{name}": float(value)
            for name, geco in self._gecos().items()
            for value_name, value in geco.report().items()
        }
        return self.metrics.means() | reports

    def state(self) -> dict[str, Any]:
        """The training state beside the weights: builtins and tensors only."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "gecos": dict(self.gecos.state_dict()),
            "metrics": self.metrics.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Load a `state()`, before the first step; the learning rate remains that of this run."""
        self.gecos.load_state_dict(state["gecos"])
        self.optimiser.load_state_dict(state["optimiser"])
        for group in self.optimiser.param_groups:
            group["lr"], group["capturable"] = self.lr, self.mode.graphed
        self.metrics.load_state(state["metrics"])
        self._pass_weight_to_refinement()

    def _gecos(self) -> dict[str, Geco | EmorlGeco]:
        return {name: cast("Geco | EmorlGeco", geco) for name, geco in self.gecos.items()}

    @torch.no_grad()
    def _pass_weight_to_refinement(self) -> None:
        """Refinement follows the gradient of the loss, so it needs GECO's weight of the error."""
        if self.model.refinement is not None:
            geco = self._gecos()[self.model.objective_names[0]]
            assert isinstance(geco, EmorlGeco)
            self.model.refinement.error_weight.copy_(geco.error_weight())

    def _clip_gradients(self) -> Tensor:
        """The norm of all gradients before they are clipped, if they are."""
        grads = [p.grad for p in self.params if p.grad is not None]
        norm = nn.utils.get_total_norm(grads, foreach=True)
        if self.settings.clip_grad is not None:
            nn.utils.clip_grads_with_norm_(self.params, self.settings.clip_grad, norm, foreach=True)
        return norm

    @torch.no_grad()
    def _update(self, finite: Tensor, before: list[Tensor]) -> None:
        """Adam's update if the step is `finite`; else everything is as before it."""
        # Fused Adam changes nothing where found_inf is 1, and the host need not read it.
        self.optimiser.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self.optimiser.grad_scale = None  # type: ignore[attr-defined]
        self.optimiser.step()
        for buffer, old in zip(self.changing, before, strict=True):
            buffer.copy_(torch.where(finite, buffer, old))


class Metrics:
    """Sums over the finite steps, on the device, the same on all ranks.

    `steps` counts all steps, on the host.
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
        """The sums so far, for a checkpoint between two log records."""
        return {
            "names": list(self.names),
            "sums": self.sums.clone(),
            "good": self.good.clone(),
            "steps": self.steps,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue the sums of a `state()`."""
        self.names, self.steps = tuple(state["names"]), state["steps"]
        self.sums, self.good = state["sums"].to(self.device), state["good"].to(self.device)

    def means(self) -> dict[str, float]:
        """Means over the finite steps (NaN without any), and `skipped`, the number of others."""
        good = float(self.good)
        sums: list[float] = self.sums.tolist()
        means = {n: s / good if good else math.nan for n, s in zip(self.names, sums, strict=True)}
        return means | {"skipped": self.steps - round(good)}

    def reset(self) -> None:
        """Begin new sums."""
        self.sums.zero_()
        self.good.zero_()
        self.steps = 0
