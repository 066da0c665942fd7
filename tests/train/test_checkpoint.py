"""Checkpoints: resuming is exact to the last bit in another process, kills and flipped bits do no harm unseen."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import tapegrad as tg
from tapegrad import nn, optim, train
from tapegrad.errors import CheckpointError, TrainingError
from tapegrad.train import Trainer, checkpoint

SETUP = """
    import sys
    import numpy as np
    import tapegrad as tg
    from tapegrad import data, nn, optim, train

    def loader():
        rng = np.random.default_rng(1)
        x = rng.standard_normal((44, 3)).astype(np.float32)
        return data.DataLoader((x, (x.sum(1) > 0).astype(np.int64)), batch_size=8, shuffle=True, seed=5)

    def trainer(name, **settings):
        tg.seed(3)
        model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))
        optimizer = getattr(optim, name)(model.parameters(), lr=0.01)
        hooks = [train.EarlyStopping("epoch.loss", patience=50), train.Pace()]
        return train.Trainer(model, nn.CrossEntropyLoss(), optimizer, progress=False, seed=4, hooks=hooks, **settings)

    def weights(t):
        return b"".join(p.numpy().tobytes() for p in t.model.parameters())
"""
space: dict = {}
exec(textwrap.dedent(SETUP), space)
loader, trainer, weights = space["loader"], space["trainer"], space["weights"]

GRADIENT = sorted(
    name for name in optim.__all__
    if isinstance(getattr(optim, name), type) and issubclass(getattr(optim, name), optim.Optimizer)
    and name not in ("Optimizer", "LBFGS")
)  # fmt: skip


def elsewhere(program: str, *args: str) -> str:
    """What a fresh Python prints."""
    text = textwrap.dedent(SETUP) + textwrap.dedent(program)
    ended = subprocess.run([sys.executable, "-c", text, *args], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


@pytest.mark.parametrize("steps", [9, 12])  # within an epoch of 6, and at its end
def test_resuming_in_another_process_is_exact_for_every_optimizer(tmp_path, steps):
    wanted = {}
    for name in GRADIENT:
        whole = trainer(name)
        whole.fit(loader(), iterations=2 * steps)
        half = trainer(name)
        half.fit(loader(), iterations=steps)
        half.save(tmp_path / name)
        wanted[name] = [weights(whole).hex(), whole.values["loss"], whole.values["epoch.loss"], whole.epoch]
    program = """
        import json
        found = {}
        for name in sys.argv[3:]:
            t = trainer(name)
            t.load(f"{sys.argv[1]}/{name}")
            t.fit(loader(), iterations=int(sys.argv[2]))
            found[name] = [weights(t).hex(), t.values["loss"], t.values["epoch.loss"], t.epoch]
        print(json.dumps(found))
        """
    found = json.loads(elsewhere(program, str(tmp_path), str(steps), *GRADIENT))
    for name in GRADIENT:
        assert found[name] == wanted[name], name


def test_going_on_in_the_same_process_is_exact():
    whole, parts = trainer("Adam"), trainer("Adam")
    tg.seed(4)
    whole.fit(loader(), epochs=3)
    tg.seed(4)
    own = loader()
    for _ in range(6):
        parts.fit(own, iterations=3)
    assert weights(whole) == weights(parts) and parts.epoch == 3
    assert whole.history["loss"] == parts.history["loss"]


def test_a_loaded_trainer_goes_on_to_where_it_was_to_go(tmp_path):
    whole = trainer("SGD")
    whole.fit(loader(), epochs=4)
    first = trainer("SGD")
    first.hooks.append(train.Call(lambda t: t.save(tmp_path), train.After("iteration", 10)))
    first.hooks.append(train.Call(lambda t: t.stop(), train.After("iteration", 13)))
    first.fit(loader(), epochs=4)
    again = trainer("SGD")
    again.hooks += [train.Call(lambda t: None), train.Call(lambda t: None)]
    with pytest.raises(CheckpointError, match="was made with the hooks EarlyStopping, Pace, <lambda>, <lambda>"):
        trainer("SGD").load(tmp_path)
    again.load(tmp_path)
    assert again.iteration == 10
    again.fit(loader())
    assert again.epoch == 4 and weights(again) == weights(whole)


def test_a_checkpoint_is_a_folder_that_other_libraries_read(tmp_path):
    from safetensors.numpy import load_file

    t = trainer("Adam")
    t.fit(loader(), epochs=1)
    path = t.save(tmp_path)
    assert path == tmp_path / "000000006"
    assert sorted(p.name for p in path.iterdir()) == [
        "manifest.json", "model.safetensors", "optimizer.safetensors", "trainer.safetensors",
    ]  # fmt: skip
    saved = load_file(path / "model.safetensors")
    np.testing.assert_array_equal(saved["0.weight"], t.model[0].weight.numpy())


def test_choosing_what_to_keep(tmp_path):
    t = trainer("Adam")
    t.fit(loader(), epochs=1)
    t.save(tmp_path, only=("model",))
    other = trainer("SGD")
    other.load(tmp_path)
    assert weights(other) == weights(t) and other.iteration == 0
    with pytest.raises(CheckpointError, match="has no optimizer; it has model"):
        other.load(tmp_path, only=("optimizer",))
    with pytest.raises(TrainingError, match="save: there is no weights; there are model, optimizer, trainer"):
        t.save(tmp_path, only=("weights",))


def test_how_many_are_kept(tmp_path):
    t = trainer("SGD")
    t.hooks.append(train.Checkpoint(tmp_path, train.Every(2, "iteration"), keep=3, best="loss"))
    t.fit(loader(), epochs=3)
    assert train.checkpoints(tmp_path) == ["000000014", "000000016", "000000018"]
    assert len(train.checkpoints(tmp_path / "best")) == 1
    t.save(tmp_path)
    assert train.checkpoints(tmp_path) == ["000000014", "000000016", "000000018.1"]
    assert t.load(tmp_path).name == "000000018.1"


def test_a_new_training_in_the_folder_of_a_longer_one(tmp_path):
    longer = trainer("SGD")
    longer.hooks.append(train.Checkpoint(tmp_path, train.Every(2, "iteration"), keep=2, best="loss"))
    longer.fit(loader(), iterations=8)
    assert train.checkpoints(tmp_path) == ["000000006", "000000008"]
    new = trainer("SGD", clip_grad_norm=0.1)
    new.hooks.append(train.Checkpoint(tmp_path, train.Every(2, "iteration"), keep=2, best="loss"))
    new.fit(loader(), iterations=2)
    assert train.checkpoints(tmp_path) == ["000000008", "000000002.1"]
    assert weights(new) != weights(longer)
    other = trainer("Adam")
    other.load(tmp_path, only=("model",))
    assert weights(other) == weights(new)
    other.load(tmp_path / "best", only=("model",))
    assert weights(other) == weights(new)
    new.fit(loader(), iterations=4)
    assert train.checkpoints(tmp_path) == ["000000004.1", "000000006.1"]


def test_going_on_from_an_older_checkpoint(tmp_path):
    t = trainer("SGD")
    t.hooks.append(train.Checkpoint(tmp_path, train.Every(2, "iteration"), keep=None))
    t.fit(loader(), iterations=6)
    back = trainer("SGD")
    back.hooks.append(train.Checkpoint(tmp_path, train.Every(3, "iteration"), keep=None))
    back.load(tmp_path / "000000002")
    back.fit(loader(), iterations=1)
    assert train.checkpoints(tmp_path) == ["000000002", "000000004", "000000006", "000000003.1"]
    assert back.load(tmp_path).name == "000000003.1"


def test_a_hook_whose_state_does_not_fit_is_named(tmp_path):
    def cycled(steps):
        t = trainer("SGD")
        schedule = optim.lr_scheduler.OneCycleLR(t.optimizer, 0.1, total_steps=steps)
        t.hooks.append(train.Schedule(schedule, train.Every(1, "iteration")))
        return t

    longer, shorter = cycled(9), cycled(3)
    longer.fit(loader(), iterations=8)
    longer.save(tmp_path)
    before = weights(shorter)
    with pytest.raises(
        CheckpointError, match=r"hook Schedule does not fit .*total \(saved 9, here 3\).*leave hooks out"
    ):
        shorter.load(tmp_path)
    assert weights(shorter) == before and shorter.iteration == 0


def test_a_flipped_bit_is_found(tmp_path):
    t = trainer("Adam")
    t.fit(loader(), iterations=2)
    t.save(tmp_path)
    t.fit(loader(), iterations=2)
    path = t.save(tmp_path)
    rng = random.Random(0)
    for file in sorted(path.iterdir()):
        good = file.read_bytes()
        for _ in range(20):
            at = rng.randrange(len(good))
            file.write_bytes(good[:at] + bytes([good[at] ^ 1 << rng.randrange(8)]) + good[at + 1 :])
            before = weights(t)
            if file.name == "manifest.json":  # a bit of its white space, or of its note of the iteration, does no harm
                with contextlib.suppress(CheckpointError):
                    t.load(tmp_path)
            else:
                with pytest.raises(CheckpointError, match=re.escape(str(path))) as caught:
                    t.load(tmp_path)
                assert any("000000002" in note for note in caught.value.__notes__)
            assert weights(t) == before
        file.write_bytes(good)
    (path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model.safetensors is missing"):
        t.load(tmp_path)


def test_another_architecture(tmp_path):
    t = trainer("Adam")
    t.save(tmp_path)
    model = nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 2))
    other = Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()), progress=False)
    before = weights(other)
    with pytest.raises(CheckpointError, match=r"shapes differ: 0.weight .saved .8, 3., here .9, 3.*missing: 2.weight"):
        other.load(tmp_path)
    same = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))
    third = Trainer(same, nn.CrossEntropyLoss(), optim.SGD(same.parameters(), lr=0.1), progress=False)
    untouched = weights(third)
    with pytest.raises(CheckpointError, match="SGD has"):
        third.load(tmp_path)
    assert weights(other) == before and weights(third) == untouched


def test_what_is_no_checkpoint(tmp_path):
    t = trainer("Adam")
    with pytest.raises(CheckpointError, match="is no checkpoint and holds none; one is a folder with a manifest.json"):
        t.load(tmp_path / "nothing")
    path = t.save(tmp_path)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "format": "other"}))
    with pytest.raises(CheckpointError, match="has the format 'other'; this version reads"):
        t.load(path)
    (path / "manifest.json").write_text(json.dumps({**manifest, "files": {"../x": {"bytes": 1, "sha256": ""}}}))
    with pytest.raises(CheckpointError, match="is missing; the checkpoint is damaged"):
        t.load(path)
    (path / "manifest.json").write_text("[")
    with pytest.raises(CheckpointError, match="manifest.json cannot be read"):
        t.load(path)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    t = trainer("Adam")
    t.save(tmp_path)
    t.fit(loader(), iterations=1)

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        CheckpointError, match="could not be written .*No space left on device.*earlier checkpoints are as"
    ):
        t.save(tmp_path)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["000000000"]
    t.load(tmp_path)
    t.fit(loader(), iterations=1)
    t.save(tmp_path)
    assert train.checkpoints(tmp_path) == ["000000000", "000000001"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="could not be written"):
        trainer("SGD").save(tmp_path / "file" / "below")


def test_kills_at_any_moment_leave_a_good_checkpoint(tmp_path):
    """100 processes that do nothing but save are killed after a random time."""
    program = textwrap.dedent(SETUP) + textwrap.dedent(
        """
        from tapegrad.train import checkpoint
        states = {"model": {"w": tg.ones((100, 100))}, "other": {"n": 1}}
        k = 0
        print("ready", flush=True)
        while True:
            k += 1
            checkpoint.write(sys.argv[1], k, {**states, "count": {"k": k}}, keep=2)
            print(k, flush=True)
        """
    )
    rng = random.Random(1)
    for trial in range(25):
        folder = tmp_path / str(trial)
        processes = [
            subprocess.Popen([sys.executable, "-c", program, str(folder / str(n))], stdout=subprocess.PIPE, text=True)
            for n in range(4)
        ]
        for n, process in enumerate(processes):
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            time.sleep(rng.random() * 0.02)
            process.send_signal(signal.SIGKILL)
            said = process.stdout.read().split()
            process.wait()
            process.stdout.close()
            last = int(said[-1]) if said else 0
            if last or checkpoint.names(folder / str(n)):
                states, _ = checkpoint.read(folder / str(n))
                assert states["count"]["k"] >= last and states["model"]["w"].sum().item() == 10_000.0


def test_preprocessing_is_saved_along(tmp_path):
    class Scale:
        factor = 2.0

        def state_dict(self):
            return {"factor": self.factor}

        def load_state_dict(self, state):
            self.factor = state["factor"]

    model = nn.Linear(3, 2)
    first, second = Scale(), Scale()
    first.factor = 5.0
    settings = {"progress": False}
    a = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), preprocessing=first, **settings)
    a.save(tmp_path)
    b = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), preprocessing=second, **settings)
    b.load(tmp_path)
    assert second.factor == 5.0
    c = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), **settings)
    with pytest.raises(CheckpointError, match="holds 'preprocessing', for which this trainer has no place"):
        c.load(tmp_path)


def test_a_loader_without_a_place(tmp_path):
    t = trainer("SGD")
    t.fit(loader(), iterations=2)
    t.save(tmp_path)
    batches = [(np.ones((2, 3), np.float32), np.zeros(2, np.int64))]
    again = trainer("SGD")
    again.load(tmp_path)
    with pytest.raises(TrainingError, match="goes on where a loader stopped, and a list has no load_state_dict"):
        again.fit(batches, epochs=1)
    t.fit(batches, epochs=1)  # another loader, in the same process: from its beginning
    assert t.iteration == 3
