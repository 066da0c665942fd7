"""The errors tapegrad raises. Each message names the op, what came, what was wanted and what to try."""


class TapegradError(Exception):
    """The parent of every error that tapegrad raises on purpose."""


class ShapeError(TapegradError, ValueError):
    """Shapes, axes or indices do not fit together."""


class IndexOutOfRange(ShapeError, IndexError):
    """An index points outside its axis."""


class DtypeError(TapegradError, TypeError):
    """An argument has a dtype or a Python type that the op cannot take."""


class TapeError(TapegradError, RuntimeError):
    """The tape cannot do what was asked: a freed graph, an overwritten value, another thread, a forked process."""


class KernelError(TapegradError, RuntimeError):
    """A kernel could not be compiled, loaded or run."""


class OutOfMemory(TapegradError, MemoryError):
    """A buffer does not fit under the memory limit."""


class CheckpointError(TapegradError, ValueError):
    """A saved file is damaged, truncated or does not belong to this model."""


class DataError(TapegradError, ValueError):
    """A data file is missing, damaged or not what its name says."""


class ConfigError(TapegradError, ValueError):
    """An environment setting has a value that tapegrad cannot take."""


class GradientError(TapegradError, AssertionError):
    """A derivative differs from finite differences, or a value from its reference."""


class TrainingError(TapegradError, RuntimeError):
    """A training was set up wrongly, or a hook, a command or the model failed in it."""


class PathError(TapegradError, LookupError):
    """A path or pattern is malformed, or names nothing."""
