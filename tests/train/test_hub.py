"""A model in one file: what is shared is what comes back, and what cannot be shared says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tapegrad as tg
from tapegrad import data, nn
from tapegrad.data import preprocess
from tapegrad.errors import CheckpointError, DataError
from tapegrad.train import hub


class Net(nn.Module):
    def __init__(self, width: int, *, activation=tg.tanh, scale=1.0):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(None, width), nn.BatchNorm1d(width), nn.Lambda(activation))
        self.head = nn.Linear(width, 2, bias=False)
        self.scale = scale

    def forward(self, x):
        return self.head(self.inner(x)) * self.scale


def models() -> dict[str, nn.Module]:
    shared = nn.Linear(3, 3)
    lazy = nn.Sequential(nn.Linear(None, 4), nn.Tanh(), nn.Linear(None, 2))
    net = Net(5, activation=tg.sin, scale=0.5)
    for model in (lazy, net):
        model(tg.ones((4, 3)))
    grown = nn.Sequential(nn.Linear(3, 2))
    grown.append(nn.LeakyReLU(0.3)).append(nn.Dropout(0.25))
    named = nn.Sequential({"first": nn.Linear(3, 4), "gate": nn.GELU(), "last": nn.LayerNorm(4)})
    return {
        "tied": nn.Sequential(shared, nn.PReLU(), shared),
        "lazy": lazy,
        "net": net,
        "grown": grown,
        "named": named,
        "double": nn.Sequential(nn.Linear(3, 2)).to(tg.float64),
        "lists": nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), nn.Sequential(), nn.Linear(3, 1)),
        "attention": nn.TransformerEncoderLayer(3 * 2, 2, dim_feedforward=8),
    }


@pytest.mark.parametrize("name", models())
def test_what_comes_back_computes_the_same(tmp_path, rng, name):
    model = models()[name].eval()
    frozen = next(iter(model.parameters()))
    frozen.requires_grad = False
    hub.save(tmp_path / "m", model, about={"labels": ["a", "b"], "n": 3, "rate": 0.5})
    tg.seed(1)
    wanted_next = tg.normal(size=3).tolist()
    tg.seed(1)
    shared = hub.load(tmp_path / "m", classes=[Net] if name == "net" else [])
    assert tg.normal(size=3).tolist() == wanted_next
    shape = (2, 5, 6) if name == "attention" else (5, 3)
    x = tg.tensor(rng.normal(size=shape), dtype=next(iter(model.parameters())).dtype)
    with tg.no_grad():
        wanted = model(x)
    got = shared(x)
    assert got.dtype is wanted.dtype
    np.testing.assert_array_equal(got.numpy(), wanted.numpy())
    assert shared.about == {"labels": ["a", "b"], "n": 3, "rate": 0.5}
    assert not shared.model.training
    assert [p.requires_grad for p in shared.model.parameters()] == [p.requires_grad for p in model.parameters()]
    assert repr(shared.model) == repr(model)


def test_a_shared_module_stays_shared(tmp_path):
    hub.save(tmp_path / "m", models()["tied"])
    again = hub.load(tmp_path / "m").model
    assert again[0] is again[2]


def test_preprocessing_goes_along(tmp_path, rng):
    x = rng.normal(3.0, 5.0, size=(50, 3)).astype(np.float32)
    pipeline = preprocess.Pipeline([preprocess.Impute(), preprocess.Standardize()]).fit(x)
    model = nn.Linear(3, 1)
    hub.save(tmp_path / "m", model, preprocessing=pipeline)
    shared = hub.load(data.File(tmp_path / "m"))
    np.testing.assert_array_equal(shared(x).numpy(), model(tg.tensor(pipeline.transform(x))).detach().numpy())


def test_another_process_opens_it_with_one_call(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    hub.save(tmp_path / "m.tapegrad", model)
    code = "import sys; from tapegrad.train import hub; print(hub.load(sys.argv[1])([[1.0, 2.0, 3.0]]).tolist())"
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.tapegrad")],
        capture_output=True, text=True, timeout=120, check=True, cwd=Path(tg.__file__).parents[1],
    )  # fmt: skip
    assert out.stdout.strip() == str(model([[1.0, 2.0, 3.0]]).tolist())


def test_a_class_that_is_not_given(tmp_path):
    hub.save(tmp_path / "m", models()["net"])
    with pytest.raises(CheckpointError, match=r"made of Net\(5, activation=.*, scale=0.5\).*classes=\[Net\]"):
        hub.load(tmp_path / "m")


def test_an_argument_that_a_file_cannot_hold(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), nn.Lambda(lambda x: x))
    with pytest.raises(CheckpointError, match="argument 0 of Lambda in argument 0 of Sequential is a function"):
        hub.save(tmp_path / "m", model)
    assert not (tmp_path / "m").exists()


def test_a_model_that_was_changed_after_it_was_made(tmp_path):
    net = models()["net"]
    net.extra = nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"missing|unexpected: extra"):
        hub.save(tmp_path / "m", net)
    dropout = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    dropout[1].p = 0.1
    with pytest.raises(CheckpointError, match="changed after it was made"):
        hub.save(tmp_path / "m", dropout)


def test_other_files_and_things(tmp_path):
    tg.save(tmp_path / "weights", nn.Linear(2, 2).state_dict())
    with pytest.raises(CheckpointError, match=r"no file of hub\.save; weights alone"):
        hub.load(tmp_path / "weights")
    with pytest.raises(CheckpointError, match="cannot read"):
        hub.load(tmp_path / "nowhere")
    with pytest.raises(DataError, match="nowhere"):
        hub.load(data.File(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="a function came, wanted a Module"):
        hub.save(tmp_path / "m", lambda x: x)
    with pytest.raises(CheckpointError, match=r"transformation of data\.preprocess"):
        hub.save(tmp_path / "m", nn.Linear(2, 2), preprocessing=np.log)


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path, rng):
    model = nn.Sequential(nn.Linear(3, 2), nn.LeakyReLU(0.25), nn.PReLU(2, 0.5))
    x = tg.tensor(rng.normal(size=(4, 3)), dtype=tg.float32)
    hub.save(tmp_path / "m", model)
    whole, wanted = (tmp_path / "m").read_bytes(), model(x).tolist()
    errors = 0
    for at in (*rng.integers(0, len(whole), 200), *range(len(whole) - 32, len(whole))):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "d").write_bytes(damaged)
        try:
            assert hub.load(tmp_path / "d")(x).tolist() == wanted
        except tg.errors.TapegradError:
            errors += 1
    assert errors > 220
    (tmp_path / "d").write_bytes(whole[:-5])
    with pytest.raises(CheckpointError, match="damaged"):
        hub.load(tmp_path / "d")
