"""`tg.save` and `tg.load`: what goes round, what other programs write, and files that are damaged or hostile."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import tapegrad as tg
from tapegrad import nn
from tapegrad.errors import CheckpointError, DtypeError

DTYPES = ("float32", "float64", "int32", "int64", "uint8", "bool")
SIZES = {"F64": 8, "F32": 4, "I64": 8, "U8": 1}


def round_trip(path: Path, state):
    tg.save(path, state)
    return tg.load(path)


def raw(header, data: bytes = b"", length: int | None = None) -> bytes:
    """The bytes of a safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype: str, shape: list[int], start: int = 0) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, start + SIZES.get(dtype, 2) * math.prod(shape)]}


def refuses(path: Path, payload: bytes, match: str | None = None) -> None:
    """Loading gives one sentence that names the file."""
    path.write_bytes(payload)
    with pytest.raises(CheckpointError, match=match) as caught:
        tg.load(path)
    assert path.name in str(caught.value) and "\n" not in str(caught.value).strip()


# what goes round


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (2, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_come_back_bit_for_bit(dtype, shape, tmp_path, rng):
    t = tg.tensor((rng.normal(size=shape) * 50).astype(dtype))
    back = round_trip(tmp_path / "t", {"t": t})["t"]
    assert back.shape == shape and back.dtype is t.dtype and not back.requires_grad
    assert back.numpy().tobytes() == t.numpy().tobytes()


def test_special_values_of_floats_come_back(tmp_path):
    values = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324, 1.7e308, 0x7FF0000000000001], np.float64)
    back = round_trip(tmp_path / "t", {"t": tg.tensor(values)})["t"]
    assert back.numpy().tobytes() == values.tobytes()


def test_tensors_that_are_not_contiguous_come_back_by_value(tmp_path):
    base = tg.arange(24).reshape(2, 3, 4)
    views = {
        "transposed": base.permute(2, 0, 1),
        "strided": base[:, ::2, 1::2],
        "flipped": tg.flip(base, 1),
        "broadcast": tg.broadcast_to(base[0, 0], (3, 4)),
        "row": base[1, 2],
        "scalar": base[1, 2, 3],
    }
    back = round_trip(tmp_path / "t", views)
    assert list(back) == list(views)
    for name, view in views.items():
        assert back[name].tolist() == view.tolist(), name
        assert back[name].shape == view.shape, name


def test_leaves_and_results_are_saved_by_value(tmp_path):
    p = tg.tensor([1.0, 2.0], requires_grad=True)
    back = round_trip(tmp_path / "t", {"p": p, "twice": p * 2, "array": np.arange(3), "half": np.ones(2, np.float16)})
    assert back["p"].tolist() == [1.0, 2.0] and not back["p"].requires_grad
    assert back["twice"].tolist() == [2.0, 4.0]
    assert back["array"].tolist() == [0, 1, 2] and back["half"].dtype is tg.float16


PLAIN = [
    None,
    True,
    False,
    0,
    1,
    -(2**63),
    2**64,
    10**30,
    -(10**5000),
    0.0,
    1.5,
    5e-324,
    math.inf,
    -math.inf,
    "",
    "text",
    'quotes " and \\ and \n',
    "ünïcödé 漢字 🎉",
    "\x00",
    "\ud800",
    [],
    (),
    {},
    [[]],
    ((),),
    [1, (2, [3, {"four": 4}])],
    {"": {"": None}},
]


@pytest.mark.parametrize("value", PLAIN, ids=range(len(PLAIN)))
def test_plain_values_come_back(value, tmp_path):
    back = round_trip(tmp_path / "v", {"v": value, "list": [value, tg.ones(1)]})
    assert back["v"] == value and type(back["v"]) is type(value)
    assert back["list"][0] == value and back["list"][1].tolist() == [1.0]


def test_zero_keeps_its_sign_and_nan_stays(tmp_path):
    back = round_trip(tmp_path / "v", {"zero": -0.0, "nan": math.nan, "numpy": np.float64(0.1)})
    assert math.copysign(1.0, back["zero"]) == -1.0 and math.isnan(back["nan"]) and back["numpy"] == 0.1


NAMES = [
    "",
    "/",
    "a",
    "a/b",
    "a#2",
    "#2",
    "a/b#2",
    "//",
    "0",
    "list",
    "ü",
    "🎉",
    " ",
    "\n",
    "\x00",
    '"',
    "__metadata__",
    "\ud800",
    "x" * 5000,
]


def test_odd_names_do_not_meet(tmp_path):
    flat = {name: tg.tensor(i) for i, name in enumerate(NAMES)}
    state = {"": flat, "a": {"b": tg.tensor(100), "": {"b": tg.tensor(101)}}, "a/b": tg.tensor(102)}
    state |= {"a/b#2": tg.tensor(103)} | {f"{k}_": v for k, v in flat.items()}
    state["list"] = [tg.tensor(104), {"1": tg.tensor(105)}]
    state["list/0"] = tg.tensor(106)
    back = round_trip(tmp_path / "n", state)
    assert list(back) == list(state) and list(back[""]) == NAMES
    assert [t.item() for t in back[""].values()] == list(range(len(NAMES)))
    assert (back["a"]["b"].item(), back["a"][""]["b"].item()) == (100, 101)
    assert (back["a/b"].item(), back["a/b#2"].item()) == (102, 103)
    assert [back["list"][0].item(), back["list"][1]["1"].item(), back["list/0"].item()] == [104, 105, 106]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_each_odd_name_alone(name, tmp_path):
    assert round_trip(tmp_path / "n", {name: tg.ones(2)})[name].tolist() == [1.0, 1.0]


def test_order_of_names_is_kept(tmp_path):
    state = {name: tg.ones(1) for name in ("z", "a", "m")}
    assert list(round_trip(tmp_path / "n", state)) == ["z", "a", "m"]
    assert round_trip(tmp_path / "n", {}) == {}


def test_one_tensor_under_two_names(tmp_path):
    t = tg.ones(3)
    back = round_trip(tmp_path / "n", {"a": t, "b": t, "view": t[1:]})
    assert back["a"].tolist() == back["b"].tolist() == [1.0] * 3 and back["view"].shape == (2,)


def test_a_model_comes_back(tmp_path):
    model, other = (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)) for _ in range(2))
    other.load_state_dict(round_trip(tmp_path / "model.safetensors", model.state_dict()))
    x = tg.normal(size=(3, 1, 4, 4))
    assert model(x).numpy().tobytes() == other(x).numpy().tobytes()


# other programs


def test_plain_safetensors_files_load(tmp_path):
    from safetensors.numpy import load_file, save_file

    arrays = {
        "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 4)),
        "scalar": np.array(7, np.int64),
        "bytes": np.arange(3, dtype=np.uint8),
        "half": np.array([0.5], np.float16),
        "small": np.array([-3], np.int16),
    }
    save_file(arrays, tmp_path / "plain.safetensors", metadata={"format": "np"})
    back = tg.load(tmp_path / "plain.safetensors")
    assert set(back) == set(arrays)
    for name, array in arrays.items():
        assert back[name].shape == array.shape and back[name].tolist() == array.tolist(), name
    tg.save(tmp_path / "ours.safetensors", {"weight": tg.tensor(arrays["weight"]), "lr": 0.1})
    theirs = load_file(tmp_path / "ours.safetensors")
    assert list(theirs) == ["weight"] and theirs["weight"].tolist() == arrays["weight"].tolist()


# damaged and hostile files


@pytest.fixture
def whole(tmp_path) -> bytes:
    tg.save(tmp_path / "whole", {"a": tg.arange(40), "b": {"c": tg.ones((3, 3)), "lr": 0.1, "n": ["x", ("y", None)]}})
    return (tmp_path / "whole").read_bytes()


def test_truncated_anywhere(whole, tmp_path):
    lengths = sorted({*range(24), *range(24, len(whole), 7), *range(len(whole) - 12, len(whole))})
    for length in lengths:
        refuses(tmp_path / "cut", whole[:length])
    refuses(tmp_path / "long", whole + b"\0")


def test_flipped_bytes_in_the_header(whole, tmp_path, rng):
    """Each either loads something, or gives a CheckpointError; nothing else escapes."""
    end = 8 + int.from_bytes(whole[:8], "little")
    path = tmp_path / "flipped"
    refused = 0
    for _ in range(1500):
        payload = bytearray(whole)
        for at in rng.integers(0, end, rng.integers(1, 4)):
            payload[at] = rng.integers(256)
        path.write_bytes(payload)
        try:
            loaded = tg.load(path)
        except CheckpointError:
            refused += 1
        else:
            assert isinstance(loaded, dict)
    assert refused > 500


@pytest.mark.parametrize("length", [0, 1, 2, 1 << 20, 100 << 20, (100 << 20) + 1, 1 << 32, 1 << 63, (1 << 64) - 1])
def test_header_lengths_that_lie(length, tmp_path):
    refuses(tmp_path / "lies", raw({"a": entry("F32", [1])}, bytes(4), length))


HOSTILE = {
    "overlap": raw({"a": entry("F32", [2]), "b": entry("F32", [2], 4)}, bytes(12)),
    "same place": raw({"a": entry("F32", [2]), "b": entry("F32", [2])}, bytes(8)),
    "hole": raw({"a": entry("F32", [1]), "b": entry("F32", [1], 8)}, bytes(12)),
    "beyond the end": raw({"a": entry("F32", [100])}, bytes(8)),
    "backwards": raw({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, bytes(4)),
    "negative shape": raw({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4)),
    "wrong size": raw({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)),
    "huge shape": raw({"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 8]}}, bytes(8)),
    "huge empty shape": raw({"a": {"dtype": "F32", "shape": [2**62, 2**62, 0], "data_offsets": [0, 0]}}),
    "huge offsets": raw({"a": {"dtype": "F32", "shape": [1], "data_offsets": [2**64, 2**64 + 4]}}, bytes(4)),
    "many axes": raw({"a": {"dtype": "F32", "shape": [1] * 100, "data_offsets": [0, 4]}}, bytes(4)),
    "no shape": raw({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, bytes(4)),
    "no table": raw({"a": 3}),
    "unknown dtype": raw({"a": entry("F99", [1])}, bytes(2)),
    "list": raw([1, 2]),
    "number": raw(b"123456789"),
    "not JSON": raw(b"{" * 50),
    "not text": raw(b"\xff\xfe{}"),
    "deep": raw(b"[" * 200_000 + b"]" * 200_000),
    "deep table": raw(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "metadata of numbers": raw({"__metadata__": {"tapegrad": 3}}),
    "metadata as list": raw({"__metadata__": []}),
    "metadata twice": raw(b'{"__metadata__":{"tapegrad":"{}"},"__metadata__":3}'),
    "zip": b"PK\x03\x04" + bytes(200),
    "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name, tmp_path):
    refuses(tmp_path / "hostile", HOSTILE[name])


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "C64"])
def test_dtypes_that_tapegrad_does_not_have(dtype, tmp_path):
    nbytes = 8 if dtype == "C64" else 1
    refuses(tmp_path / "d", raw({"a": {"dtype": dtype, "shape": [1], "data_offsets": [0, nbytes]}}, bytes(nbytes)))


def test_integers_too_large_for_int64(tmp_path):
    refuses(tmp_path / "d", raw({"a": {"dtype": "U64", "shape": [1], "data_offsets": [0, 8]}}, b"\xff" * 8), "int64")


STRUCTURES = [
    "",
    "{",
    "3",
    "null",
    "[]",
    "{}",
    '{"format": "tapegrad-1"}',
    '{"format": "other-9", "state": {"dict": []}}',
    '{"format": null}',
    *(
        json.dumps({"format": "tapegrad-1", "state": state})
        for state in (
            None,
            3,
            [],
            {},
            {"value": 3},
            {"tensor": "a"},
            {"list": []},
            {"dict": 3},
            {"dict": [1]},
            {"dict": [["a"]]},
            {"dict": [[1, {"value": 1}]]},
            {"dict": [[["a"], {"value": 1}]]},
            {"dict": [["a", {"tensor": "missing"}]]},
            {"dict": [["a", {"tensor": ["a"]}]]},
            {"dict": [["a", {"float": "0x1p999999"}]]},
            {"dict": [["a", {"float": 3}]]},
            {"dict": [["a", {"float": "one"}]]},
            {"dict": [["a", {"int": "ten"}]]},
            {"dict": [["a", {"int": 3.5}]]},
            {"dict": [["a", {"value": {"b": []}}]]},
            {"dict": [["a", {"pickle": "x"}]]},
            {"dict": [["a", {"list": 3}]]},
            {"dict": [["a", {"value": 1, "list": []}]]},
            {"dict": "ab"},
        )
    ),
    '{"format": "tapegrad-1", "state": ' + '{"list": [' * 50_000 + "]}" * 50_000 + "}",
    '{"format": "tapegrad-1", "state": {"dict": [["a", {"value": ' + "9" * 5000 + "}]]}}",
]


@pytest.mark.parametrize("structure", STRUCTURES, ids=range(len(STRUCTURES)))
def test_damaged_structure(structure, tmp_path):
    refuses(tmp_path / "s", raw({"__metadata__": {"tapegrad": structure}, "a": entry("F32", [1])}, bytes(4)))


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="No such file"):
        tg.load(tmp_path / "missing")
    with pytest.raises(CheckpointError, match="cannot read"):
        tg.load(tmp_path)
    with pytest.raises(CheckpointError, match="cannot write"):
        tg.save(tmp_path / "no" / "such" / "folder", {"a": tg.ones(1)})
    with pytest.raises(CheckpointError, match="failed"):
        tg.save(tmp_path, {"a": tg.ones(1)})
    for bad in ("null\0byte", tmp_path / "null\0byte"):
        with pytest.raises(CheckpointError):
            tg.save(bad, {})
        with pytest.raises(CheckpointError):
            tg.load(bad)
    assert list(tmp_path.iterdir()) == []


# writing


def test_names_of_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("plain", b"bytes".decode(), Path("object"), "x" * 250, "ü" * 120):
        assert round_trip(path, {"a": 1}) == {"a": 1}
    assert sorted(os.listdir()) == sorted(["plain", "bytes", "object", "x" * 250, "ü" * 120])


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_file_mode(tmp_path):
    path = tmp_path / "m"
    before = os.umask(0o022)
    try:
        tg.save(path, {})
        assert path.stat().st_mode & 0o777 == 0o644
        path.chmod(0o600)
        tg.save(path, {"a": 1})
        assert path.stat().st_mode & 0o777 == 0o600  # an existing file keeps its mode
        os.umask(0o077)
        tg.save(tmp_path / "private", {})
        assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()], ids=["full", "interrupted"])
@pytest.mark.parametrize("where", ["fsync", "replace", "chmod"])
def test_a_failing_write_leaves_the_old_file(where, error, tmp_path, monkeypatch):
    path = tmp_path / "kept"
    tg.save(path, {"a": 1})

    def fail(*args, **kwargs):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, where, fail)
        with pytest.raises(CheckpointError if isinstance(error, OSError) else KeyboardInterrupt):
            tg.save(path, {"a": 2})
    assert tg.load(path) == {"a": 1} and [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_unsupported_values_name_the_path_inside(tmp_path):
    path = tmp_path / "u"
    cycle: dict = {}
    cycle["again"] = cycle
    deep: list = []
    for _ in range(sys.getrecursionlimit() * 2):
        deep = [deep]
    for state, match in [
        ({"model": {"layers": [tg.ones(1), object()]}}, r"model/layers/1 is a object"),
        ({"a": {1, 2}}, "a is a set"),
        ({"a": {"b": 1j}}, "a/b is a complex"),
        ({"a": b"bytes"}, "a is a bytes"),
        ({"a": {"b": {3: 1}}}, r"key 3 under a/b"),
        ({None: 1}, "key None"),
        ({"a": np.array(["x"])}, "a cannot"),
        ({"a": np.ones(2, complex)}, "a cannot be saved.*complex"),
        ({"a": nn.Linear(1, 1)}, "a is a Linear.*state_dict"),
        ([1], "got list"),
        (tg.ones(1), "got Tensor"),
        (nn.Linear(1, 1), "state_dict"),
        (cycle, "nested"),
        ({"a": deep}, "nested"),
        ({"a": np.int64(3)}, "a is a int64"),
    ]:
        with pytest.raises(DtypeError, match=match):
            tg.save(path, state)
        assert not path.exists()
