"""Float32 masters of an unsharded model in one flat buffer, for an optimizer step that the host does not hold up.

At ZeRO stage 0 DeepSpeed's own wrapper goes through the parameters one by one: 19 operators and one wait of the host
for each of them. Here the masters of all parameters stand behind one another in one buffer, group by group, as a ZeRO
partition of one rank would have them, and so do the model's own bf16 or fp16 copies, of which the parameters become
views. A step joins the gradients (on a CPU autograd adds them to one buffer at once), reduces them over the ranks,
takes one norm, which is the only number that the host waits for, lets the optimizer update a flat tensor a group, and
copies the whole buffer back at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainer.optim.lamb import Lamb, Segments

ALIGNMENT = 64
"""Elements to a multiple of which every parameter begins: what matrix products want of an address, and to spare."""


@dataclass
class LossScale:
    """The factor that keeps fp16 gradients above zero: halved when they overflow, doubled after `window` good steps."""

    value: float = 1.0
    window: int = 0
    """0 never changes the factor."""
    lowest: float = 1.0
    num_good_steps: int = 0

    def update(self, overflow: bool) -> None:
        """Note how a step ended."""
        if not self.window:
            return
        self.num_good_steps = 0 if overflow else self.num_good_steps + 1
        if overflow:
            self.value = max(self.lowest, self.value / 2)
        elif self.num_good_steps == self.window:
            self.value, self.num_good_steps = 2 * self.value, 0


@dataclass(frozen=True)
class _Place:
    """Where a parameter stands in the flat buffer, and in which group."""

    name: str
    parameter: nn.Parameter
    group: int
    start: int

    def view(self, flat: Tensor, base: int = 0) -> Tensor:
        """The parameter's part of a flat tensor that begins at element `base` of the buffer, in its shape."""
        return flat.narrow(0, self.start - base, self.parameter.numel()).view(self.parameter.shape)


class MasterWeights:
    """An optimizer over flat float32 masters of a module's parameters.

    DeepSpeed's engine calls `step` and reads `overflow` and `_global_grad_norm` after it. `param_groups` and `state`
    are those of the optimizer inside, whose parameters are one flat tensor a group.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, dtype: torch.dtype, clip_norm: float, loss_scale: LossScale
    ) -> None:
        self.optimizer, self.dtype, self.clip_norm, self.loss_scale = optimizer, dtype, clip_norm, loss_scale
        self.overflow = False
        self._global_grad_norm: float | None = None
        self._places: list[_Place] = []
        self._gradients: Tensor | None = None
        self.lends_gradients = False
        """Whether `scale` gives parameters parts of one buffer for their gradients; on a CPU it does."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of the optimizer inside."""
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:
        """The states of the optimizer inside, by flat master."""
        return self.optimizer.state

    def attach(self, module: nn.Module) -> None:
        """Move the module's parameters into the buffers, on the device where they are; they become views.

        Parameters without gradients are cast and stay where they are.
        """
        names = {parameter: name for name, parameter in module.named_parameters()}
        bounds = [0]
        for index, group in enumerate(self.param_groups):
            end = bounds[-1]
            for parameter in group["params"]:
                self._places.append(_Place(names[parameter], parameter, index, end))
                end += parameter.numel() + -parameter.numel() % ALIGNMENT
            bounds.append(end)
        device = self._places[0].parameter.device
        self.lends_gradients = device.type == "cpu"
        self._flat = torch.zeros(bounds[-1], dtype=torch.float32, device=device)
        for place in self._places:
            place.view(self._flat).copy_(place.parameter.detach())
        self._model = self._flat if self.dtype == torch.float32 else self._flat.to(self.dtype)
        for place in self._places:
            place.parameter.data = place.view(self._model)
        for parameter in module.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(self.dtype)
        self._views = {place.name: place.view(self._flat) for place in self._places}
        self._gap = torch.zeros(ALIGNMENT, dtype=self.dtype, device=device)
        self._bounds = bounds
        self._masters = [nn.Parameter(self._flat[a:b]) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
        for group, master in zip(self.param_groups, self._masters, strict=True):
            group["params"] = [master]
        if isinstance(self.optimizer, Lamb):
            self.optimizer.set_segments({master: self._segments(index) for index, master in enumerate(self._masters)})

    def _segments(self, group: int) -> Segments:
        base = self._bounds[group]
        places = [place for place in self._places if place.group == group]
        spans = tuple((place.start - base, place.parameter.numel(), i) for i, place in enumerate(places))
        return Segments(spans, len(places))

    @torch.no_grad()
    def step(self) -> None:
        """Update masters and model from the gradients of all ranks, unless these are not finite; every rank calls it.

        The norm of the ranks' mean gradient, before clipping, is in `_global_grad_norm`.
        """
        gradients = self._take_gradients()
        num_ranks = dist.get_world_size() if dist.is_initialized() else 1
        if num_ranks > 1:
            dist.all_reduce(gradients)
        divisor = num_ranks * self.loss_scale.value
        norm = torch.linalg.vector_norm(gradients, dtype=torch.float32).item() / divisor
        self.overflow, self._global_grad_norm = not math.isfinite(norm), norm
        self.loss_scale.update(self.overflow)
        if self.overflow:
            return
        excess = (norm + 1e-6) / self.clip_norm if self.clip_norm else 1.0
        self._update(gradients, 1 / (divisor * max(1.0, excess)))

    def _take_gradients(self) -> Tensor:
        """All gradients behind one another, taken off the parameters; zeros where there is none."""
        if self._gradients is not None:
            return self._collect_into(self._gradients)
        parts = []
        for place in self._places:
            parameter = place.parameter
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parts.append(gradient.reshape(-1))
            if parameter.numel() % ALIGNMENT:
                parts.append(self._gap[: -parameter.numel() % ALIGNMENT])
            parameter.grad = None
        return torch.cat(parts)

    def _lend_gradients(self) -> None:
        """Give each parameter that has no gradient its zeroed part of one buffer, to which autograd adds.

        On a CPU this saves the step a copy of all gradients, and memory that is asked for anew at every step. On a GPU
        it would cost a kernel a parameter, where joining them is one.
        """
        if self._gradients is None:
            self._gradients = torch.zeros_like(self._model)
        lacking = [place for place in self._places if place.parameter.grad is None]
        if len(lacking) == len(self._places):
            self._gradients.zero_()
        for place in lacking:
            place.parameter.grad = place.view(self._gradients)
            if len(lacking) < len(self._places):
                place.parameter.grad.zero_()

    def _collect_into(self, joined: Tensor) -> Tensor:
        for place in self._places:
            gradient, part = place.parameter.grad, place.view(joined)
            if gradient is None:
                part.zero_()
            elif gradient.data_ptr() != part.data_ptr():
                part.copy_(gradient)
            place.parameter.grad = None
        return joined

    def _update(self, gradients: Tensor, factor: float) -> None:
        wide = gradients.float()
        if factor != 1:
            wide.mul_(factor)
        for index, master in enumerate(self._masters):
            master.grad = wide[self._bounds[index] : self._bounds[index + 1]]
        self.optimizer.step()
        for master in self._masters:
            master.grad = None
        self.copy_to_model()

    def copy_to_model(self) -> None:
        """Write the masters into the weights that the model computes with."""
        if self._model is not self._flat:
            self._model.copy_(self._flat)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for place in self._places:
            place.parameter.grad = None

    def scale(self, backward: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
        """The engine's `backward`, of a loss times the loss scale."""

        def scaled(loss: Tensor) -> Any:
            if self.lends_gradients:
                self._lend_gradients()
            return backward(loss if self.loss_scale.value == 1 else loss.float() * self.loss_scale.value)

        return scaled

    def masters(self) -> dict[str, Tensor]:
        """Name → float32 parameter, a view of the buffer."""
        return dict(self._views)

    def state_dict(self) -> dict[str, Any]:
        """Masters and states by the names of the parameters, whatever the order and the groups; views, not copies."""
        scale = {"value": self.loss_scale.value, "num_good_steps": self.loss_scale.num_good_steps}
        return {"loss_scale": scale, "masters": self.masters(), "states": dict(self._cut_states())}

    def _cut_states(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for place in self._places:
            base, master = self._bounds[place.group], self._masters[place.group]
            state = self.optimizer.state.get(master, {})
            yield place.name, {k: place.view(v, base) if _is_flat(v, master) else v for k, v in state.items()}

    @torch.no_grad()
    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, or what torch's and DeepSpeed's optimizers of earlier versions gave."""
        if "masters" not in saved:
            saved = self._convert_earlier(saved)
        self.loss_scale.value = saved["loss_scale"]["value"]
        self.loss_scale.num_good_steps = saved["loss_scale"]["num_good_steps"]
        for place in self._places:
            if place.name in saved["masters"]:
                place.view(self._flat).copy_(saved["masters"][place.name])
            self._join_state(place, saved["states"][place.name])
        self.copy_to_model()

    def _join_state(self, place: _Place, saved: dict[str, Any]) -> None:
        base, master = self._bounds[place.group], self._masters[place.group]
        state = self.optimizer.state[master]
        for key, value in saved.items():
            if isinstance(value, Tensor) and value.shape == place.parameter.shape:
                if key not in state:
                    state[key] = torch.zeros_like(master)
                place.view(state[key], base).copy_(value)
            else:
                state[key] = value.to(master.device, copy=True) if isinstance(value, Tensor) else value

    def _convert_earlier(self, saved: dict[str, Any]) -> dict[str, Any]:
        """States by number as states by name: parameters are numbered group by group."""
        inner = saved.get("optimizer_state_dict", saved)
        names = [place.name for place in self._places]
        masters = [master for group in saved.get("fp32_groups", []) for master in group]
        return {
            "loss_scale": {"value": self.loss_scale.value, "num_good_steps": 0},
            "masters": dict(zip(names, masters, strict=False)),
            "states": {name: inner["state"].get(number, {}) for number, name in enumerate(names)},
        }


def _is_flat(value: Any, master: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == master.shape
