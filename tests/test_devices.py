"""Tensors on a device that the host cannot read: every op, gradients, modules, optimizers, sessions; and tensors on two devices."""

from __future__ import annotations

import numpy as np
import pytest
from far_device import FAR, install
from registry_cases import params
from test_ops_reference import run

import tapegrad as tg
import tapegrad.nn.functional as F
from tapegrad import nn, optim
from tapegrad.errors import DtypeError, TapeError
from tapegrad.ops import samples


@pytest.fixture(autouse=True)
def far():
    return install()


@pytest.mark.parametrize("op", params())
def test_every_op_and_its_gradients(op):
    for drawn in samples.draw(op, np.random.default_rng(0)):
        for got, expected in zip(run(op, drawn, "float64", FAR), run(op, drawn, "float64", "reference"), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_in_and_out(rng):
    a = rng.normal(size=(3, 4)).astype(np.float32)
    t = tg.tensor(a, device=FAR)
    assert t.device == FAR and t.shape == (3, 4)
    np.testing.assert_array_equal(t.numpy(), a)
    np.testing.assert_array_equal(t.T.numpy(), a.T)
    np.testing.assert_array_equal(t[::-1, 1:3].numpy(), a[::-1, 1:3])
    assert t[1, 2].item() == a[1, 2] and t.tolist() == a.tolist()
    np.testing.assert_array_equal(t.to("cpu").numpy(), a)
    assert t.to(FAR) is t and t.to("cpu").to(FAR).device == FAR
    np.testing.assert_array_equal(t.to(tg.float64).numpy(), a.astype(np.float64))
    assert "device='cuda:77'" in repr(t)
    assert tg.zeros((0, 3), device=FAR).numpy().shape == (0, 3)
    np.testing.assert_array_equal((t + 1.5).numpy(), a + np.float32(1.5))
    np.testing.assert_array_equal(np.asarray(t @ t.T), a @ a.T)


def test_writes(rng):
    a = rng.normal(size=(4, 5))
    t = tg.tensor(a, device=FAR)
    for key, value in [((slice(None), 1), 3.0), (2, np.arange(5.0)), (([0, 3], [1, 1]), -1.0), (a > 1, 0.0)]:
        t[key] = value
        a[key] = value
        np.testing.assert_array_equal(t.numpy(), a)
    t.copy_(tg.ones((4, 5), dtype=tg.float64, device=FAR))
    np.testing.assert_array_equal(t.numpy(), np.ones((4, 5)))


def test_random_numbers_are_those_of_the_cpu():
    for draw in (
        lambda d: tg.normal(size=(5, 3), device=d),
        lambda d: tg.uniform(size=7, device=d),
        lambda d: tg.randint(0, 9, size=11, device=d),
    ):
        tg.seed(4)
        there = draw(FAR).numpy()
        tg.seed(4)
        np.testing.assert_allclose(there, draw("cpu").numpy(), rtol=1e-6)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3)
        self.last = nn.Linear(8, 2)

    def forward(self, x):
        return self.last(self.drop(tg.tanh(self.norm(self.first(x)))))


OPTIMIZERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "Adam": lambda p: optim.Adam(p, lr=0.01),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.01),
    "Lion": lambda p: optim.Lion(p, lr=0.01),
    "NAdam": lambda p: optim.NAdam(p, lr=0.01),
}


def trained(device: str, session, make, steps: int = 12) -> tuple[list[float], list[np.ndarray]]:
    tg.seed(0)
    model = Net().to(device)
    optimizer, losses = make(model.parameters()), []
    rng = np.random.default_rng(0)
    for i in range(steps):
        x = rng.normal(size=(6, 3)).astype(np.float32)
        y = rng.integers(0, 2, 6)
        for group in optimizer.param_groups:
            group["lr"] *= 0.99
        with session:
            loss = F.cross_entropy(model(tg.tensor(x, device=device)), tg.tensor(y, device=device)) * (1.0 + i)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        losses.append(loss)
    assert all(p.device == device for p in model.parameters())
    return [t.item() for t in losses], [v.numpy() for v in model.state_dict().values()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_in_a_session(name):
    from contextlib import nullcontext

    wanted = trained("reference", nullcontext(), OPTIMIZERS[name])
    session = tg.Session()
    for got in (trained(FAR, nullcontext(), OPTIMIZERS[name]), trained(FAR, session, OPTIMIZERS[name])):
        np.testing.assert_allclose(got[0], wanted[0], rtol=1e-5)
        for a, b in zip(got[1], wanted[1], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert session.stats.recordings <= 3


def test_a_trainer_brings_batches_to_the_model():
    from tapegrad import data, train

    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    found = []
    for device in ("reference", FAR):
        tg.seed(0)
        model = Net().to(device)
        trainer = train.Trainer(
            model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()), metrics=["accuracy"], progress=False
        )
        loader = data.DataLoader((x, (x[:, 0] > 0).astype(np.int64)), batch_size=8, shuffle=True, seed=0)
        history = trainer.fit(loader, epochs=2, validation=loader)
        found.append([*history["loss"], *history["validation.loss"], next(trainer.predict([x])).sum()])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


def test_a_model_moves_with_all_that_it_has():
    model = Net().to(FAR)
    assert {v.device for v in (*model.parameters(), *model.buffers())} == {FAR}
    assert {v.device for v in (*model.to("cpu").parameters(), *model.buffers())} == {"cpu"}


def test_two_devices_in_one_op():
    here, there = tg.ones(3), tg.ones(3, device=FAR)
    with pytest.raises(DtypeError, match=r"add: input 0 is on cpu, input 1 is on cuda:77; .*\.to\("):
        here + there
    with pytest.raises(DtypeError, match="on cpu"):
        F.linear(there[None], tg.ones((2, 3)), None)
    with pytest.raises(TapeError, match="gradients do not flow between devices"):
        (tg.ones(3, requires_grad=True) * 2).to(FAR)


def test_memory_is_the_devices(far):
    before = far.pool.stats()["allocations"]
    t = tg.ones((1 << 19,), device=FAR)
    assert far.pool.stats()["allocations"] == before + 1
    address = t.address
    del t
    assert tg.ones((1 << 19,), device=FAR).address == address


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool"])
def test_dlpack_both_ways(rng, dtype):
    a = (rng.normal(size=(4, 5)) * 3).astype(dtype)
    t = tg.tensor(a, device=FAR)
    assert t.__dlpack_device__() == (2, 77)
    for view, wanted in ((t, a), (t.T, a.T), (t[1:, ::2], a[1:, ::2]), (t[0, 0], a[0, 0]), (t[:0], a[:0])):
        back = tg.from_dlpack(view)
        assert back.device == FAR and back.dtype is t.dtype
        np.testing.assert_array_equal(back.numpy(), wanted)
        assert back.size == 0 or back.address != view.address
    assert tg.from_dlpack(t, device="cpu").device == "cpu"


def test_a_capsule_keeps_the_memory_and_lets_go_of_it(far):
    from tapegrad.tape import exchange

    t = tg.full((1000,), 7.0, device=FAR)
    size_class = far.pool.size_class(4000)
    capsule = t.__dlpack__()
    address = t.address
    del t
    assert address not in size_class.free
    again = exchange.from_capsule(capsule)
    assert again.numpy().sum() == 7000 and address in size_class.free
    with pytest.raises(DtypeError, match="used before"):
        exchange.from_capsule(capsule)
    unused = again.__dlpack__()
    address = again.address
    del again
    assert address not in size_class.free
    del unused
    assert address in size_class.free


def test_the_cuda_array_interface(rng):
    a = rng.normal(size=(4, 6)).astype(np.float32)
    t = tg.tensor(a, device=FAR)

    class Foreign:
        def __init__(self, t):
            self.__cuda_array_interface__ = t.__cuda_array_interface__

    found = t.__cuda_array_interface__
    assert found["shape"] == (4, 6) and found["typestr"] == "<f4" and found["strides"] is None and found["version"] == 3
    assert t.T.__cuda_array_interface__["strides"] == (4, 24)
    np.testing.assert_array_equal(tg.tensor(Foreign(t.T), device=FAR).numpy(), a.T)
    assert tg.tensor(Foreign(t), dtype=tg.float64, device=FAR, requires_grad=True).requires_grad
    assert not hasattr(tg.ones(2), "__cuda_array_interface__")
    assert not hasattr(tg.ones(2, device=FAR, requires_grad=True), "__cuda_array_interface__")
    np.testing.assert_array_equal(t.cpu().numpy(), a)


def test_other_libraries_are_told_the_queue_and_waited_for(far):
    t = tg.tensor([1.0, 2.0], device=FAR)

    class Foreign:
        asked = None

        def __dlpack_device__(self):
            return 2, 77

        def __dlpack__(self, **kwargs):
            self.asked = kwargs
            return t.__dlpack__()

    x, before = Foreign(), len(far.followed)
    assert tg.from_dlpack(x).tolist() == [1, 2] and x.asked == {"stream": far.queue}
    # whoever had the capsule may have asked for more, before the memory is used again; NumPy, which lets go of it, does not
    # say whether anybody had it
    assert far.followed[before:] == [1]
    t.__dlpack__()
    assert far.followed[before:] == [1, 1]
    for said, streams in (({}, [1]), ({"stream": None}, []), ({"stream": 1}, [1]), ({"stream": 99}, [99])):
        there = len(far.followed)
        found = {k: v for k, v in t.__cuda_array_interface__.items() if k != "stream"} | said
        assert tg.tensor(type("Array", (), {"__cuda_array_interface__": found})(), device=FAR).tolist() == [1, 2]
        assert far.followed[there:] == streams, said


def test_names_of_devices():
    from tapegrad.layouts import device_named

    assert device_named("cuda") == device_named("gpu") == device_named("cuda:0") == "cuda:0"
    for name in ("tpu", "cuda:", "cuda:x", 3, None):
        with pytest.raises(DtypeError, match="is not known"):
            device_named(name)
