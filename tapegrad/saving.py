"""`tg.save` and `tg.load`: tensors and plain values in one safetensors file. Never pickle.

Nested dicts and lists are flattened to names joined by "/", with a JSON description in the file's metadata; a flat dict
of tensors is an ordinary safetensors file that other libraries read. Files are written beside the target, synced and
renamed, so a crash leaves the old file. Format: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from .dtypes import bfloat16
from .errors import CheckpointError, DtypeError, TapegradError
from .halves import widened
from .tape.apply import host_memory
from .tape.create import tensor
from .tape.tensor import Tensor

FORMAT = "tapegrad-1"
KEY = "tapegrad"  # the metadata entry that holds the structure
METADATA = "__metadata__"  # the format's own entry of the header
MAX_HEADER = 100 << 20  # bytes; safetensors itself refuses more


def save(path: str | os.PathLike, state: dict[str, Any]) -> None:
    """Write a dict of tensors, or of nested dicts and lists of tensors, numbers, strings and None.

    >>> import os, tempfile
    >>> import tapegrad as tg
    >>> path = os.path.join(tempfile.mkdtemp(), "state.safetensors")
    >>> save(path, {"weight": tg.ones(2), "step": 3})
    >>> load(path)
    {'weight': tensor([1., 1.]), 'step': 3}
    """
    from safetensors.numpy import save as pack

    if not isinstance(state, dict):
        raise DtypeError(f"save: wanted a dict, such as model.state_dict(), got {type(state).__name__}")
    arrays: dict[str, np.ndarray] = {}
    try:
        structure = json.dumps({"format": FORMAT, "state": _describe(state, "", arrays)})
    except RecursionError:
        raise DtypeError("save: the state is nested too deeply, or contains itself") from None
    payload = pack(arrays, {KEY: structure})
    halves = [name for name, array in arrays.items() if array.dtype == np.uint16]
    _write(Path(path), _as_bfloat16(payload, halves) if halves else payload)


def _as_bfloat16(payload: bytes, names: list[str]) -> bytes:
    """The file with those entries, bits to NumPy, called what they are: safetensors writes what NumPy knows."""
    length = int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8 : 8 + length])
    for name in names:
        header[name]["dtype"] = "BF16"
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + payload[8 + length :]


def _describe(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """The value as JSON, with each tensor replaced by the name it is stored under."""
    if isinstance(value, Tensor | np.ndarray):
        stored = _free_name(name, arrays)
        try:
            arrays[stored] = host_memory(tensor(value)).copy()
        except TapegradError as error:
            raise DtypeError(f"save: {name or 'the top'} cannot be saved: {error}") from None
        return {"tensor": stored}
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 63:
        return {"int": hex(value)}  # Python refuses to read and write thousands of decimal digits
    if value is None or isinstance(value, bool | int | str):
        return {"value": value}
    if isinstance(value, float):
        return {"float": value.hex()}  # JSON has no inf or nan, and hex is exact
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_describe(v, f"{name}/{i}", arrays) for i, v in enumerate(value)]}
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise DtypeError(f"save: the key {key!r} under {name or 'the top'} is not a string")
        return {"dict": [[k, _describe(v, f"{name}/{k}" if name else k, arrays)] for k, v in value.items()]}
    hint = "; pass its .state_dict()" if hasattr(value, "state_dict") else ""
    raise DtypeError(
        f"save: {name or 'the top'} is a {type(value).__name__}; "
        f"only tensors, numbers, strings, None, lists, tuples and dicts are saved{hint}"
    )


def _free_name(name: str, arrays: dict[str, np.ndarray]) -> str:
    """A name that is not taken, and that the format allows: Unicode text, except the name of the metadata."""
    name = name.encode("utf-8", "backslashreplace").decode()
    stored, i = name, 2
    while stored in arrays or stored == METADATA:
        stored, i = f"{name}#{i}", i + 1
    return stored


def _write(path: Path, payload: bytes) -> None:
    """All of the payload under that name, or nothing."""
    folder = path.parent if str(path.parent) else Path(".")
    try:
        temporary = folder / f"{path.name[:40]}.{secrets.token_hex(6)}.partial"
        file = open(temporary, "xb")  # noqa: SIM115  closed below; the mode is what the umask allows
    except (OSError, ValueError) as error:
        raise CheckpointError(f"save: cannot write into {folder}: {getattr(error, 'strerror', error)}") from None
    try:
        with file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.chmod(temporary, path.stat().st_mode & 0o777)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if not isinstance(error, OSError):
            raise
        raise CheckpointError(f"save: writing {path} failed, what was there is untouched: {error.strerror}") from None
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a loss of power, where the system can; the file itself is already synced."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def load(path: str | os.PathLike) -> dict[str, Any]:
    """Read what `save` wrote, or any safetensors file of supported dtypes: a dict of tensors.

    Raises CheckpointError where the file is missing, truncated or damaged. Nothing in the file is executed.
    """
    from safetensors import SafetensorError, deserialize

    path = Path(path)
    try:
        payload = path.read_bytes()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"load: cannot read {path}: {getattr(error, 'strerror', error)}") from None
    header = _header(path, payload)
    try:
        arrays = {name: (entry["dtype"], _array(entry)) for name, entry in deserialize(payload)}
    except DtypeError as error:
        raise CheckpointError(f"load: {path} holds a dtype that tapegrad does not have: {error}") from None
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise CheckpointError(f"load: {path} is damaged, or is no safetensors file: {error}") from None
    try:
        tensors = {n: tensor(widened(a), bfloat16) if kind == "BF16" else tensor(a) for n, (kind, a) in arrays.items()}
    except DtypeError as error:
        raise CheckpointError(f"load: {path} holds a dtype that tapegrad does not have: {error}") from None
    described = header.get(METADATA, {}).get(KEY)
    if described is None:
        return tensors
    try:
        structure = json.loads(described)
        if structure["format"] != FORMAT:
            raise CheckpointError(f"load: {path} has format {structure['format']!r}, this version reads {FORMAT!r}")
        state = _restore(structure["state"], tensors)
        if not isinstance(state, dict):
            raise TypeError(f"a {type(state).__name__} where a dict was wanted")
        return state
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"load: the structure in {path} is damaged: {type(error).__name__} {error}") from None


NAMES: dict[str, Any] = {"BOOL": bool, "F16": "float16", "F32": "float32", "F64": "float64", "BF16": "uint16"}
NAMES |= {f"{kind}{8 * n}": np.dtype(f"{kind.lower()}{n}") for kind in "UI" for n in (1, 2, 4, 8)}


def _array(entry: dict) -> np.ndarray:
    """An entry of a safetensors file; of bfloat16 its bits."""
    if entry["dtype"] not in NAMES:
        raise DtypeError(f"{entry['dtype']!r}")
    return np.frombuffer(entry["data"], NAMES[entry["dtype"]]).reshape(entry["shape"])


def _header(path: Path, payload: bytes) -> dict:
    """The JSON header, after a look at the sizes: 8 bytes of length, the header, the data."""
    length = int.from_bytes(payload[:8], "little") if len(payload) >= 8 else -1
    if not 2 <= length <= min(len(payload) - 8, MAX_HEADER):
        raise CheckpointError(
            f"load: {path} is truncated, or is no safetensors file: "
            f"it has {len(payload)} bytes and names a header of {length}"
        )
    try:
        header = json.loads(payload[8 : 8 + length])
    except (ValueError, RecursionError):
        raise CheckpointError(f"load: the header of {path} is not JSON: damaged, or no safetensors file") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"load: the header of {path} is not a table of tensors")
    return header


def _restore(description: dict, tensors: dict[str, Tensor]) -> Any:
    ((kind, value),) = description.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "value" and (value is None or isinstance(value, bool | int | str)):
        return value
    if kind == "int":
        return int(value, 16)
    if kind == "float":
        return float.fromhex(value)
    if kind in ("list", "tuple"):
        made = [_restore(v, tensors) for v in value]
        return tuple(made) if kind == "tuple" else made
    if kind == "dict" and all(isinstance(k, str) for k, _ in value):
        return {k: _restore(v, tensors) for k, v in value}
    raise KeyError(kind)
