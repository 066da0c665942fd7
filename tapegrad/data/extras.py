"""Libraries that some readers need and most programs do not."""

from __future__ import annotations

import importlib
from types import ModuleType

from ..errors import DataError


def extra(module: str, name: str, who: str) -> ModuleType:
    """The module, imported now; DataError that says which extra of tapegrad brings it, where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as reason:
        library = module.partition(".")[0]
        raise DataError(
            f"{who} needs {library}, which is not installed ({reason}). Try: pip install 'tapegrad[{name}]'"
        ) from reason
