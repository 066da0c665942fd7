"""A trainer with `autocast` and `grad_scaler`: the loop that one would write, step for step."""

from __future__ import annotations

import numpy as np
import pytest

import tapegrad as tg
from tapegrad import data, nn, optim
from tapegrad.errors import DtypeError
from tapegrad.train import Trainer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 6)).astype(np.float32)
Y = (X[:, :3].argmax(1)).astype(np.int64)


def network() -> nn.Module:
    tg.seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 3))


def loader() -> data.DataLoader:
    return data.DataLoader((X, Y), batch_size=16)


def trainer_of(model, half="float16", scale=2.0**12, **settings) -> Trainer:
    scaler = optim.GradScaler(scale, growth_interval=4)
    made = optim.Adam(model.parameters(), lr=0.02)
    return Trainer(
        model, nn.CrossEntropyLoss(), made, progress=False, seed=0, autocast=half, grad_scaler=scaler, **settings
    )


@pytest.mark.parametrize("clip", [None, 0.25])
def test_it_is_the_loop_that_one_would_write(clip):
    model, trainer = network(), None
    trainer = trainer_of(model, clip_grad_norm=clip)
    trainer.fit(loader(), epochs=3)
    by_hand = network()
    optimizer, scaler = optim.Adam(by_hand.parameters(), lr=0.02), optim.GradScaler(2.0**12, growth_interval=4)
    for _ in range(3):
        for x, y in loader():
            with tg.autocast("float16"):
                loss = nn.functional.cross_entropy(by_hand(tg.tensor(x)), tg.tensor(y))
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            if clip is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(list(by_hand.parameters()), clip)
            scaler.step(optimizer)
            scaler.update()
    assert trainer.grad_scaler.get_scale() == scaler.get_scale() == 2.0**14
    for p, q in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert p.dtype is tg.float32
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-4, atol=1e-6)


def test_evaluation_and_prediction_are_cast_too():
    seen = []

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x):
            y = self.layer(x)
            seen.append(y.dtype)
            return y

    trainer = trainer_of(Watched(), "bfloat16", metrics=["accuracy"])
    found = trainer.evaluate(loader())
    assert set(found) == {"loss", "accuracy"}
    outputs = list(trainer.predict(loader()))
    assert [o.dtype for o in outputs] == [np.float32] * 3 and set(seen) == {tg.bfloat16}
    assert tg.autocast.current() is None


def test_the_scaler_is_saved_along(tmp_path):
    trainer = trainer_of(network(), scale=2.0**30)  # overflows at first, and falls
    trainer.fit(loader(), epochs=2)
    assert trainer.grad_scaler.get_scale() < 2.0**30
    path = trainer.save(tmp_path / "state")
    other = trainer_of(network())
    other.load(path)
    assert other.grad_scaler.state_dict() == trainer.grad_scaler.state_dict()
    for a in (trainer, other):
        a.fit(loader(), epochs=1)
    for p, q in zip(trainer.model.parameters(), other.model.parameters(), strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


def test_a_dtype_that_is_no_half():
    with pytest.raises(DtypeError, match=r'autocast: dtype \'float32\' came; wanted is "bfloat16" or "float16"'):
        trainer_of(network(), "float32")
