"""What every transformation can do: be fitted, be applied, be undone, be saved."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np

from ...errors import DataError

KINDS: dict[str, type[Transform]] = {}


class Transform:
    """A transformation of arrays whose first axis is the sample, as scikit-learn has it.

    A subclass names the arguments of its `__init__` in `options` and what `fit` finds in `learned`; both are attributes,
    the learned ones None before `fit`. It gives `transform`, and `fit` and `inverse_transform` where there is something to
    learn or to undo. Its state can then be saved, and made into an object again by `restore`.
    """

    options: ClassVar[tuple[str, ...]] = ()
    learned: ClassVar[tuple[str, ...]] = ()
    random = False  # whether transform takes a generator of random numbers

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        KINDS[cls.__name__] = cls

    def fit(self, x: Any) -> Self:
        """Learn from training data, and from nothing else."""
        return self

    def transform(self, x: Any) -> Any:
        """The transformed samples, in new memory."""
        raise NotImplementedError

    def fit_transform(self, x: Any) -> Any:
        """`fit(x)`, then `transform(x)`."""
        return self.fit(x).transform(x)

    def inverse_transform(self, x: Any) -> Any:
        """What `transform` made `x` of. DataError where that cannot be known."""
        raise DataError(f"{type(self).__name__}: what it does cannot be undone.")

    def __call__(self, x: Any) -> Any:
        return self.transform(x)

    def check_fitted(self) -> None:
        """DataError unless it was fitted."""
        if any(getattr(self, name) is None for name in self.learned):
            raise DataError(
                f"{type(self).__name__} is not fitted: call fit on the training data first, or load what was saved."
            )

    def state_dict(self) -> dict[str, Any]:
        """Its kind, options and what it learned: plain values and arrays, for `tg.save` and checkpoints."""
        return {
            "kind": type(self).__name__,
            "options": {name: getattr(self, name) for name in self.options},
            "learned": {name: getattr(self, name) for name in self.learned},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over options and what was learned. DataError where another kind was saved."""
        if state.get("kind") != type(self).__name__:
            raise DataError(f"{type(self).__name__}: what was saved is a {state.get('kind')}; build the same pipeline.")
        for name in self.options:
            setattr(self, name, plain(state["options"][name]))
        for name in self.learned:
            setattr(self, name, plain(state["learned"][name]))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.options)})"


def restore(state: dict[str, Any]) -> Transform:
    """The transformation that a state was taken of, without the program that made it.

    >>> from tapegrad.data.preprocess.scaling import Standardize
    >>> scaler = Standardize().fit(np.array([[1.0], [3.0]]))
    >>> restore(scaler.state_dict()).transform(np.array([[5.0]]))
    array([[3.]])
    """
    kind = KINDS.get(state.get("kind", ""))
    if kind is None:
        raise DataError(
            f"restore: there is no transformation {state.get('kind')!r}; there are {', '.join(sorted(KINDS))}. One of your "
            "own must be imported first."
        )
    made = kind.__new__(kind)
    made.load_state_dict(state)
    return made


def plain(value: Any) -> Any:
    """A saved value as it was: `tg.load` gives tensors where arrays were saved.

    >>> plain({"a": (1, np.ones(2))})
    {'a': (1, array([1., 1.]))}
    """
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(v) for v in value)
    if isinstance(value, np.ndarray):
        return value.copy()
    return np.array(value.numpy()) if hasattr(value, "numpy") else value


def applied(step: Any, x: Any, rng: np.random.Generator | None) -> Any:
    """What a transformation, or any function, makes of `x`; one that is random draws from `rng`."""
    if getattr(step, "random", False) and rng is not None:
        return step.transform(x, rng)
    return step.transform(x) if isinstance(step, Transform) else step(x)


def as_array(x: Any, who: str) -> np.ndarray:
    """An array with at least one sample; DataError else."""
    array = np.asarray(x)
    if array.ndim == 0:
        raise DataError(f"{who}: a single value came; wanted is an array whose first axis is the sample.")
    return array


def as_numbers(x: Any, who: str) -> np.ndarray:
    """An array of numbers; DataError else."""
    array = as_array(x, who)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{who}: {array.dtype} came; wanted are numbers. Categories or OneHot make numbers of texts.")
    return array


def floating(array: np.ndarray) -> np.dtype:
    """The dtype of the result: float64 stays, all else becomes float32."""
    return np.dtype(np.float64 if array.dtype == np.float64 else np.float32)
