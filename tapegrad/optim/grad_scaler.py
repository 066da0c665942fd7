"""Loss scaling: gradients that float16 can hold."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from ..errors import CheckpointError, ShapeError, TapeError
from ..ops.comparison import isfinite
from ..ops.elementwise import multiply
from ..ops.joining import stack
from ..ops.movement import astype
from ..ops.reduce import all_
from ..tape.assign import update
from ..tape.create import tensor
from ..tape.state import no_grad
from ..tape.tensor import Tensor
from .optimizer import Optimizer


class GradScaler:
    """Scales the loss before `backward`, the gradients back before the step, and leaves out steps whose gradients overflowed.

    float16 ends at 65504 and takes numbers below 6e-8 for 0, and gradients under `tg.autocast("float16")` can be smaller. The scale
    falls by `backoff_factor` when a gradient is infinite or nan, and the step is not taken: parameters, the optimizer's state and its
    count of steps stay as they are. It grows by `growth_factor` after `growth_interval` steps without.

    `step` reads whether all gradients are finite, which waits for the device. bfloat16 and float32 need no scaling.

    init_scale: the first scale. enabled: False makes every method do what the code without it does. Names and defaults are those
    of `torch.amp.GradScaler`.
    Errors: TapeError where the calls are out of order, ShapeError where a factor makes no sense.
    Source: Micikevicius et al. 2018, "Mixed precision training".

    >>> import tapegrad as tg
    >>> w = tg.tensor([1.0], requires_grad=True)
    >>> optimizer, scaler = tg.optim.SGD([w], lr=0.5), GradScaler(init_scale=1024.0)
    >>> with tg.autocast("float16"):
    ...     loss = (w @ w)
    >>> scaler.scale(loss).backward()
    >>> w.grad
    tensor([2048.])
    >>> scaler.step(optimizer)
    >>> scaler.update()
    >>> w, w.grad
    (tensor([0.], requires_grad=True), tensor([2.]))
    """

    def __init__(
        self,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ):
        self._scale, self._since = _checked("init_scale", init_scale, init_scale > 0.0, "a number above 0"), 0
        self.growth_factor = _checked("growth_factor", growth_factor, growth_factor > 1.0, "a number above 1")
        self.backoff_factor = _checked("backoff_factor", backoff_factor, 0.0 < backoff_factor < 1.0, "between 0 and 1")
        self.growth_interval = int(
            _checked("growth_interval", growth_interval, growth_interval >= 1, "a number of steps from 1")
        )
        self._enabled = enabled
        # of the optimizers whose gradients were scaled back since the last `update`
        self._finite: dict[Optimizer, bool] = {}
        self._stepped: set[Optimizer] = set()

    def is_enabled(self) -> bool:
        """Whether losses are scaled at all."""
        return self._enabled

    def get_scale(self) -> float:
        """The factor of the losses now; 1 where the scaler is not enabled."""
        return self._scale if self._enabled else 1.0

    def scale(self, outputs):
        """A loss, or several in a list or tuple, times the scale. float16 becomes float32 before, which holds the result."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, list | tuple):
            return type(outputs)(self.scale(t) for t in outputs)
        if not isinstance(outputs, Tensor):
            raise TapeError(f"GradScaler.scale: a loss is a tensor, not a {type(outputs).__name__}")
        wide = astype(outputs, outputs.dtype.compute)
        return multiply(wide, tensor(self._scale, dtype=wide.dtype, device=outputs.device))

    def unscale_(self, optimizer: Optimizer) -> None:
        """Scale the gradients of an optimizer's parameters back, in place: before they are clipped. `step` does it otherwise."""
        if not self._enabled:
            return
        if optimizer in self._finite:
            raise TapeError("GradScaler.unscale_: it was called for this optimizer since the last update()")
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not gradients:
            raise TapeError(
                "GradScaler: none of the optimizer's parameters has a gradient; call scale(loss).backward() before"
            )
        back: dict[tuple, Tensor] = {}
        with no_grad():
            for g in gradients:
                where = g.dtype.compute, g.device
                if where not in back:
                    back[where] = tensor(1.0 / self._scale, dtype=where[0], device=where[1])
                update((g,), multiply, (g, back[where]))
            devices = {g.device for g in gradients}
            parts = [stack([all_(isfinite(g)) for g in gradients if g.device == d], 0) for d in sorted(devices)]
            self._finite[optimizer] = all(all_(part).item() for part in parts)

    def step(self, optimizer: Optimizer) -> None:
        """`optimizer.step()` with the gradients scaled back; nothing where one of them is not finite."""
        if not self._enabled:
            optimizer.step()
            return
        if optimizer in self._stepped:
            raise TapeError("GradScaler.step: it was called for this optimizer since the last update()")
        if optimizer not in self._finite:
            self.unscale_(optimizer)
        self._stepped.add(optimizer)
        if self._finite[optimizer]:
            optimizer.step()

    def update(self, new_scale: float | None = None) -> None:
        """Set the scale for the next iteration, after the last `step` of this one; to `new_scale` where it is given."""
        if not self._enabled:
            return
        if new_scale is not None:
            self._scale = _checked("new_scale", new_scale, new_scale > 0.0, "a number above 0")
        elif not self._finite:
            raise TapeError(
                "GradScaler.update: no gradients were looked at since the last update(); call step(optimizer) before"
            )
        elif not all(self._finite.values()):
            self._scale, self._since = self._scale * self.backoff_factor, 0
        else:
            self._since += 1
            if self._since >= self.growth_interval:
                self._scale, self._since = min(self._scale * self.growth_factor, MOST), 0
        self._finite, self._stepped = {}, set()

    def state_dict(self) -> dict[str, Any]:
        """Scale, settings and how many steps went well: what `tg.save` takes."""
        names = ("growth_factor", "backoff_factor", "growth_interval")
        return {"scale": self._scale, "_growth_tracker": self._since, **{k: getattr(self, k) for k in names}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave."""
        wanted = self.state_dict()
        if not isinstance(state, dict) or set(state) != set(wanted):
            raise CheckpointError(f"GradScaler: the state is to have {sorted(wanted)}; it has {sorted(state)}")
        made = GradScaler(*(state[k] for k in ("scale", "growth_factor", "backoff_factor", "growth_interval")))
        self._scale, self._since = made._scale, int(state["_growth_tracker"])
        self.growth_factor, self.backoff_factor = made.growth_factor, made.backoff_factor
        self.growth_interval = made.growth_interval


MOST = 2.0**126  # whose inverse float32 holds, too


def _checked(name: str, value, fits: bool, wanted: str) -> float:
    if not isinstance(value, Real) or isinstance(value, bool) or not fits or math.isinf(value):
        raise ShapeError(f"GradScaler: {name} is {wanted}, not {value!r}")
    return float(value)
