"""Kernels with the mistakes that people make; all but `Honest`, `ByHand` and `Checking`."""

from typing import Any

import attrs
import numpy as np

from checkpointable import Array, InvalidCheckpoint, capture, reinstate


def finite(_: Any, attribute: Any, value: Any) -> None:
    if not np.isfinite(value).all():
        raise ValueError(f"{attribute.name} must be finite")


@attrs.frozen
class WalkCheckpoint:
    step: int
    at: Array[np.float64] = attrs.field(validator=finite)
    before: Array[np.float64]
    scale: float = attrs.field(validator=finite)
    rng: dict[str, str | int | dict[str, int]]


class Honest:
    """Two buffers that swap roles, random numbers, and a value derived from the state."""

    def __init__(self) -> None:
        self.step = 0
        self.at = np.zeros(3)
        self.before = np.zeros(3)
        self.scale = 1.0
        self.generator = np.random.default_rng(1)
        self.total = 0.0

    @property
    def rng(self) -> Any:
        return self.generator.bit_generator.state

    @rng.setter
    def rng(self, state: Any) -> None:
        self.generator.bit_generator.state = state

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            self.before[:] = self.at - 0.5 * self.before + self.generator.standard_normal(3)
            self.before *= self.scale
            self.at, self.before = self.before, self.at
            self.step += 1

    async def checkpoint(self) -> WalkCheckpoint:
        return await capture(WalkCheckpoint, self)

    async def restore(self, checkpoint: WalkCheckpoint) -> None:
        await reinstate(checkpoint, self)


class Sync(Honest):
    def checkpoint(self) -> WalkCheckpoint:  # type: ignore[override]
        return WalkCheckpoint(self.step, self.at, self.before, 1.0, self.rng)


class Unseeded(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.generator = np.random.default_rng()


class Miscounting(Honest):
    def advance(self, steps: int) -> None:
        super().advance(steps)
        self.step += steps > 2


class InBatches(Honest):
    """Does something at the end of each call, however short."""

    def advance(self, steps: int) -> None:
        super().advance(steps)
        self.at += 1e-9


class Aliasing(Honest):
    async def checkpoint(self) -> WalkCheckpoint:
        return WalkCheckpoint(self.step, self.at, self.before.copy(), self.scale, self.rng)


class OneBuffer(Honest):
    """Copies, but always into the same array."""

    def __init__(self) -> None:
        super().__init__()
        self.staging = np.zeros(3)

    async def checkpoint(self) -> WalkCheckpoint:
        self.staging[:] = self.at
        return WalkCheckpoint(self.step, self.staging, self.before.copy(), self.scale, self.rng)


class Adopting(Honest):
    """Uses the checkpoint's own arrays as its state."""

    async def restore(self, checkpoint: WalkCheckpoint) -> None:
        await reinstate(checkpoint, self)
        self.at = np.asarray(checkpoint.at)


class Drawing(Honest):
    """Draws a random number for each checkpoint."""

    async def checkpoint(self) -> WalkCheckpoint:
        self.generator.standard_normal()
        return await super().checkpoint()


@attrs.frozen
class NoRngCheckpoint:
    step: int
    at: Array[np.float64]
    before: Array[np.float64]


class ForgottenRng(Honest):
    async def checkpoint(self) -> NoRngCheckpoint:  # type: ignore[override]
        return await capture(NoRngCheckpoint, self)

    async def restore(self, checkpoint: NoRngCheckpoint) -> None:  # type: ignore[override]
        await reinstate(checkpoint, self)


@attrs.frozen
class PingPongCheckpoint:
    step: int
    buffers: Array[np.float64]


class ForgottenParity:
    """Two buffers in one array; the checkpoint does not hold which one is current."""

    def __init__(self) -> None:
        self.step = 0
        self.buffers = np.arange(6.0).reshape(2, 3)
        self.parity = 0

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            self.buffers[1 - self.parity] += 0.5 * self.buffers[self.parity]
            self.parity = 1 - self.parity
            self.step += 1

    async def checkpoint(self) -> PingPongCheckpoint:
        return await capture(PingPongCheckpoint, self)

    async def restore(self, checkpoint: PingPongCheckpoint) -> None:
        await reinstate(checkpoint, self)


class StaleCache(Honest):
    """Keeps a sum of its state, and forgets to recompute it: a fresh kernel has none yet."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: float | None = None

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            if self.cache is None or self.step % 5 == 0:
                self.cache = 1.0 + self.step // 5
            super().advance(1)
            self.at += self.cache


class Incomplete(Honest):
    """Does not set all fields."""

    async def restore(self, checkpoint: WalkCheckpoint) -> None:
        before = self.before.copy()
        await reinstate(checkpoint, self)
        self.before[:] = before


class Adding(Honest):
    """Adds the checkpoint to its state: right in a fresh kernel only."""

    async def restore(self, checkpoint: WalkCheckpoint) -> None:
        at = self.at.copy()
        await reinstate(checkpoint, self)
        self.at += at


class ByHand(Honest):
    """Restores by hand, and right."""

    def copy_in(self, checkpoint: WalkCheckpoint) -> None:
        self.step, self.scale, self.rng = checkpoint.step, checkpoint.scale, checkpoint.rng
        self.at[:], self.before[:] = checkpoint.at, checkpoint.before


class Unchecked(ByHand):
    """What does not fit is cast, broadcast, or ends in NumPy's error."""

    async def restore(self, checkpoint: WalkCheckpoint) -> None:
        self.copy_in(checkpoint)


class OtherError(ByHand):
    """Checks first, but not with the error of the contract."""

    async def restore(self, checkpoint: WalkCheckpoint) -> None:
        for name in ("at", "before"):
            array = getattr(checkpoint, name)
            if (array.dtype, array.shape) != (self.at.dtype, self.at.shape):
                raise ValueError(f"{name} does not fit")
        self.copy_in(checkpoint)


class Checking(ByHand):
    """Checks by hand, and right."""

    def check(self, good: bool) -> None:
        if not good:
            raise InvalidCheckpoint("it does not fit")

    def check_fields(self, checkpoint: WalkCheckpoint) -> None:
        for name in ("step", "scale", "rng", "at", "before"):
            self.check(hasattr(checkpoint, name))

    def check_arrays(self, checkpoint: WalkCheckpoint) -> None:
        for array in (checkpoint.at, checkpoint.before):
            self.check((array.dtype, array.shape) == (self.at.dtype, self.at.shape))

    def check_finite(self, checkpoint: WalkCheckpoint) -> None:
        self.check(bool(np.isfinite(np.asarray(checkpoint.at)).all()))

    def check_scale(self, checkpoint: WalkCheckpoint) -> None:
        self.check(bool(np.isfinite(checkpoint.scale)))

    async def restore(self, checkpoint: WalkCheckpoint) -> None:
        self.check_fields(checkpoint)
        self.check_arrays(checkpoint)
        self.check_finite(checkpoint)
        self.check_scale(checkpoint)
        self.copy_in(checkpoint)


class NoFieldsChecked(Checking):
    def check_fields(self, checkpoint: WalkCheckpoint) -> None: ...


class NoNaNChecked(Checking):
    def check_finite(self, checkpoint: WalkCheckpoint) -> None: ...


class NoScaleChecked(Checking):
    def check_scale(self, checkpoint: WalkCheckpoint) -> None: ...


class Partial(Honest):
    """Writes one field before it has checked the other."""

    async def restore(self, checkpoint: WalkCheckpoint) -> None:
        if getattr(checkpoint, "at", None) is not None and checkpoint.at.shape == self.at.shape:
            self.at[:] = checkpoint.at
        await reinstate(checkpoint, self)


class Elements(Honest):
    """Estimates its size in elements."""

    def __init__(self) -> None:
        super().__init__()
        self.at, self.before = np.zeros(3000), np.zeros(3000)

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            self.at[:] += self.generator.standard_normal()
            self.step += 1

    def checkpoint_size_estimate(self) -> int:
        return self.at.size + self.before.size


class Careless(Honest):
    """Its can_checkpoint() does not return a bool."""

    def can_checkpoint(self) -> bool:
        return 1  # type: ignore[return-value]
