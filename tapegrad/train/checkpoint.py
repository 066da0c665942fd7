"""Checkpoints: folders that are there completely or not at all, whose every byte is accounted for. Never pickle.

A checkpoint is a folder with `model.safetensors` (the model's state dict, which other libraries read), any number of other
states, one safetensors file each (see `tg.save`), and `manifest.json` with the size and SHA-256 of every file. It is written
under another name, synced and renamed, so that a process that is killed leaves either the whole or something that is
ignored, and swept away by the next save.

Checkpoints lie side by side in a folder, named by iteration; the last one is the one to go on from. Where a checkpoint is not
further on than the last one (a new training, one that went back, the same iteration again), its name has a number, `.1` and
so on, and those with a higher one come after all with a lower: the last one is always the one that was written last.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..saving import load as load_file
from ..saving import save as save_file

FORMAT = "tapegrad-checkpoint-1"
MANIFEST = "manifest.json"
SUFFIX = ".safetensors"
BLOCK = 1 << 20
_NAME = re.compile(r"(\d{9,})(?:\.(\d+))?")  # iteration, and how often iterations began again before it
_PART = re.compile(r"\.writing-\d+-[0-9a-f]+")


def write(
    folder: str | os.PathLike, iteration: int, states: dict[str, dict[str, Any]], keep: int | None = None
) -> Path:
    """Write states as the checkpoint of an iteration; afterwards remove all but the last `keep` ones (None: none).

    The path of the checkpoint. One of the same iteration is replaced. CheckpointError where it cannot be written: what was
    there before stays.
    """
    folder = Path(folder)
    part = folder / f".writing-{os.getpid()}-{secrets.token_hex(4)}"
    target = folder / f"{iteration:09d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        there = names(folder)
        again, last = _place(there[-1]) if there else (0, -1)
        if iteration <= last:
            again += 1
        if again:
            target = folder / f"{iteration:09d}.{again}"
        part.mkdir()
        files = {}
        for name, state in states.items():
            path = part / f"{name}{SUFFIX}"
            save_file(path, state)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": _digest(path)}
        manifest = {"format": FORMAT, "iteration": iteration, "files": files}
        _write_text(part / MANIFEST, json.dumps(manifest, indent=1))
        _sync(part)
        os.rename(part, target)
        _sync(folder)
    except (OSError, CheckpointError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise CheckpointError(
            f"{target} could not be written ({error}); earlier checkpoints are as they were. Make room, or choose another "
            "folder."
        ) from error
    same = [n for n in there if _place(n)[1] == iteration]
    kept = names(folder)
    for old in [*same, *(kept[:-keep] if keep is not None else ())]:
        shutil.rmtree(folder / old, ignore_errors=True)
    return target


def read(path: str | os.PathLike) -> tuple[dict[str, dict[str, Any]], Path]:
    """The states of a checkpoint, each file compared with the manifest, and where it lies.

    `path` is a checkpoint, or a folder of some, of which the last is read. CheckpointError where there is none, where a file
    is missing or was changed; it names the file, and the checkpoints before that can be read instead.
    """
    path = Path(path)
    if not (path / MANIFEST).is_file():
        found = names(path)
        if not found:
            raise CheckpointError(f"{path} is no checkpoint and holds none; one is a folder with a {MANIFEST}")
        path = path / found[-1]
    try:
        files = _checked(path)
    except CheckpointError as error:
        here = _NAME.fullmatch(path.name)
        older = [n for n in names(path.parent) if _place(n) < _place(path.name)] if here else []
        if older:
            error.add_note(f"the checkpoint before it is {path.parent / older[-1]}")
        raise
    return {name.removesuffix(SUFFIX): load_file(path / name) for name in files}, path


def names(folder: str | os.PathLike[str]) -> list[str]:
    """The names of the checkpoints in a folder, in the order in which they were written."""
    try:
        found: list[str] = [entry.name for entry in os.scandir(os.fspath(folder)) if _NAME.fullmatch(entry.name)]
    except OSError:
        return []
    return sorted([n for n in found if (Path(folder) / n / MANIFEST).is_file()], key=_place)


def _place(name: str) -> tuple[int, int]:
    """By which they are sorted: how often iterations began again, and the iteration."""
    found = _NAME.fullmatch(name)
    assert found is not None
    return int(found[2] or 0), int(found[1])


def _checked(path: Path) -> list[str]:
    """The names of a checkpoint's files, after comparing them with the manifest."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        files = manifest["files"]
        known = manifest["format"] == FORMAT
        entries = [(str(name), int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path / MANIFEST} cannot be read ({error}); the checkpoint is damaged") from error
    if not known:
        raise CheckpointError(f"{path} has the format {manifest['format']!r}; this version reads {FORMAT!r}")
    for name, size, digest in entries:
        file = path / name
        if os.path.basename(name) != name or not file.is_file():
            raise CheckpointError(f"{file} is missing; the checkpoint is damaged")
        if file.stat().st_size != size or _digest(file) != digest:
            raise CheckpointError(f"{file} is not what was saved: its size or SHA-256 differs from the manifest's")
    return [name for name, _, _ in entries]


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_text(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make renames in a folder last. Windows has no such thing, and needs none."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left."""
    for entry in os.scandir(folder):
        if _PART.fullmatch(entry.name) and not _runs(int(entry.name.split("-")[1])):
            shutil.rmtree(entry.path, ignore_errors=True)


def _runs(pid: int) -> bool:
    """True where a process of this number runs that is not this one."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OSError):
        return True
    return True
