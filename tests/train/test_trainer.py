"""The trainer against a loop of one's own; hooks, commands, values, errors."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tapegrad as tg
from tapegrad import data, nn, optim, train
from tapegrad.errors import PathError, TrainingError
from tapegrad.train import After, Every, Hook, On, Trainer


def points(n=48):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, 3)).astype(np.float32)
    return x, (x.sum(1) > 0).astype(np.int64)


def network():
    tg.seed(3)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))


def loader(size=8):
    return data.DataLoader(points(), batch_size=size, shuffle=True, seed=5)


def trainer(**settings) -> Trainer:
    model = network()
    return Trainer(
        model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.01), **{"progress": False, **settings}
    )


def weights(model) -> list[np.ndarray]:
    return [p.numpy().copy() for p in model.parameters()]


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_fit_does_what_the_loop_does():
    t = trainer(seed=9)
    history = t.fit(loader(), epochs=3)
    model = network()
    optimizer, batches, losses = optim.Adam(model.parameters(), lr=0.01), loader(), []
    tg.seed(9)
    for _ in range(3):
        for x, y in batches:
            loss = nn.CrossEntropyLoss()(model(tg.tensor(x)), tg.tensor(y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert same(weights(t.model), weights(model))
    assert history["epoch"] == [1, 2, 3] and len(history) == 3
    np.testing.assert_allclose(history["loss"], np.reshape(losses, (3, 6)).mean(1), rtol=1e-12)
    assert t.iteration == 18 and t.epoch == 3 and t.session.stats.replays >= 14
    assert t.values["loss"] == losses[-1]


def test_validation_and_metrics():
    t = trainer(metrics=["accuracy", train.F1(), lambda y, x: np.abs(y).max(1)])
    history = t.fit(loader(), epochs=2, validation=data.DataLoader(points(20), batch_size=8))
    x, y = points(20)
    t.model.eval()
    out = t.model(tg.tensor(x)).numpy()
    found = t.evaluate(data.DataLoader((x, y), batch_size=7))
    assert found["accuracy"] == (out.argmax(1) == y).mean() == history["validation.accuracy"][-1]
    true = (out.argmax(1) == 1) & (y == 1)
    binary = 2 * true.sum() / ((out.argmax(1) == 1).sum() + (y == 1).sum())
    other = 2 * ((out.argmax(1) == 0) & (y == 0)).sum() / ((out.argmax(1) == 0).sum() + (y == 0).sum())
    assert found["f1"] == pytest.approx((binary + other) / 2)
    assert found["<lambda>"] == pytest.approx(np.abs(out).max(1).mean())
    assert found["loss"] == pytest.approx(nn.CrossEntropyLoss()(tg.tensor(out), tg.tensor(y)).item(), rel=1e-6)
    t.model.train()
    t.evaluate(data.DataLoader((x, y), batch_size=7))
    assert t.model.training
    got = np.concatenate(list(t.predict(data.DataLoader(x, batch_size=6))))
    np.testing.assert_array_equal(got, out)


class Log(Hook):
    """Notes when it runs."""

    def __init__(self, trigger, log, **settings):
        super().__init__(trigger, **settings)
        self.log = log

    def run(self, trainer):
        self.log.append((trainer.iteration, trainer.epoch))


@pytest.mark.parametrize(
    ("trigger", "wanted"),
    [
        (Every(5, "iteration"), [5, 10, 15]),
        (Every(2, "epoch"), [12]),
        (After("epoch", 2), [12]),
        (After("iteration", 7), [7]),
        (On("start"), [0]),
        (On("stop"), [18]),
    ],
)
def test_triggers(trigger, wanted):
    log: list = []
    trainer(hooks=[Log(trigger, log)]).fit(loader(), epochs=3)
    assert [i for i, _ in log] == wanted


def test_triggers_count_the_whole_training():
    log: list = []
    t = trainer(hooks=[Log(Every(5, "iteration"), log), Log(After("iteration", 7), log)])
    t.fit(loader(), iterations=6)
    t.fit(loader(), iterations=6)
    assert [i for i, _ in log] == [5, 7, 10]


def test_seconds():
    log: list = []
    slow = train.Call(lambda t: time.sleep(0.02), Every(1, "iteration"))
    start = time.monotonic()
    trainer(hooks=[Log(Every(0.1, "second"), log), slow]).fit(loader(), epochs=3)
    assert 2 <= len(log) <= (time.monotonic() - start) / 0.1


def test_priorities_and_criteria():
    order: list = []
    hooks = [
        train.Call(lambda t: order.append("low"), priority=1),
        train.Call(lambda t: order.append("high"), priority=2),
        train.Call(lambda t: order.append("never"), criterion=train.Threshold("loss", "<", 0.0)),
    ]
    trainer(hooks=hooks).fit(loader(), epochs=2)
    assert order == ["high", "low"] * 2


def test_a_hook_that_raises_is_named_and_training_goes_on():
    def broken(t):
        if t.iteration == 7:
            raise KeyError("gone")

    t, batches = trainer(hooks=[train.Call(broken, Every(1, "iteration"))], seed=1), loader()
    with pytest.raises(TrainingError, match="hook broken failed after iteration 7 .epoch 2.: KeyError: 'gone'.*intact"):
        t.fit(batches, epochs=3)
    assert t.iteration == 7
    t.fit(batches, iterations=11)
    whole = trainer(seed=1)
    whole.fit(loader(), epochs=3)
    assert same(weights(t.model), weights(whole.model))


def test_background_hooks_see_a_snapshot():
    seen, started, go = [], threading.Event(), threading.Event()

    def look(snapshot):
        started.set()
        go.wait(10)
        seen.append((snapshot.iteration, snapshot.state["0.weight"].numpy().copy()))

    t = trainer(hooks=[train.Call(look, After("iteration", 2), background=True)])
    first = []
    t.hooks.append(train.Call(lambda t: first.append(weights(t.model)[0]), After("iteration", 2), priority=5))
    t.hooks.append(train.Call(lambda t: (started.wait(10), go.set()), After("iteration", 9)))
    t.fit(loader(), epochs=2)
    ((iteration, state),) = seen
    assert iteration == 2 and np.array_equal(state, first[0])
    assert not np.array_equal(state, weights(t.model)[0])


def test_a_background_hook_that_raises():
    def broken(snapshot):
        raise ValueError("no")

    t = trainer(hooks=[train.Call(broken, After("iteration", 2), background=True)])
    with pytest.raises(TrainingError, match="hook broken failed.*ValueError: no"):
        t.fit(loader(), epochs=2)


def running(t, *, epochs=100_000):
    """fit in a thread."""
    done: list = []

    def work():
        done.append(t.fit(loader(), epochs=epochs))

    thread = threading.Thread(target=work)
    thread.start()
    while t.iteration < 20 and thread.is_alive():
        time.sleep(0.005)
    return thread, done


def test_commands_from_another_thread(tmp_path):
    events: list = []
    t = trainer(
        hooks=[train.Call(lambda t, e=e: events.append(e), On(e)) for e in ("start", "pause", "resume", "stop")]
    )
    thread, done = running(t)
    at = t.pause().wait(10)
    time.sleep(0.05)
    assert t.iteration == at
    assert t.step().wait(10) == at
    for _ in range(200):
        if t.iteration == at + 1:
            break
        time.sleep(0.01)
    time.sleep(0.05)
    assert t.iteration == at + 1
    assert t.set("trainer.optimizer.lr", 0.5).wait(10) == at + 1
    assert t.optimizer.param_groups[0]["lr"] == 0.5
    with pytest.raises(PathError, match=r"nothing is named 'optimizer\.rl'; near names: .*optimizer\.lr"):
        t.set("optimizer.rl", 0.5).wait(10)
    saved = t.request_save(tmp_path)
    assert saved.wait(10) == at + 1 and saved.result.name == f"{at + 1:09d}"
    assert t.request_load(tmp_path).wait(10) == at + 1
    t.resume().wait(10)
    later = t.stop().wait(10)
    thread.join(10)
    assert not thread.is_alive() and later >= at + 1 and isinstance(done[0], train.History)
    assert events == ["start", "pause", "resume", "stop"]
    assert t.pause().wait() == t.iteration  # at once, where nothing runs
    t.resume()


def test_commands_end_with_the_training():
    t = trainer()
    receipts: list = []
    t.hooks.append(train.Call(lambda t: receipts.append(t.set("optimizer.lr", 1.0)), On("stop")))
    t.fit(loader(), epochs=1)
    with pytest.raises(TrainingError, match="set optimizer.lr: the training ended before"):
        receipts[0].wait(1)


def test_waiting_for_oneself():
    t = trainer(hooks=[train.Call(lambda t: t.pause().wait(), After("iteration", 1))])
    with pytest.raises(TrainingError, match=r"wait\(\) in the thread that trains would never end"):
        t.fit(loader(), epochs=1)


def test_addresses():
    t = trainer(hooks=[train.EarlyStopping(patience=3)])
    t.fit(data.DataLoader(points(), 8), iterations=2)
    a = t.addresses
    assert a["optimizer.lr"] == 0.01 and a["trainer.iteration"] == 2 and a["hooks.EarlyStopping.patience"] == 3
    assert set(a["model.*.bias"]) == {"model.0.bias", "model.3.bias"} and "values.loss" in list(a)
    a["model.*.bias"] = 0.0
    assert (t.model[0].bias.numpy() == 0).all() and t.session.stats.recordings < 4
    a["hooks.EarlyStopping.patience"] = 7
    assert t.hooks[0].patience == 7
    with pytest.raises(TrainingError, match="set: iteration can only be read"):
        a["iteration"] = 4
    with pytest.raises(tg.errors.ShapeError, match="Adam: lr is a number from 0, not -1"):
        a["optimizer.lr"] = -1
    assert a["optimizer.lr"] == 0.01


def test_early_stopping_puts_the_best_weights_back():
    values = iter([3.0, 2.0, 2.5, 2.2, 1.9, 5.0, 6.0, 7.0, 8.0])
    kept = []

    def pretend(t):
        t.values["validation.loss"] = next(values)
        kept.append(weights(t.model))

    t = trainer(hooks=[train.Call(pretend, priority=10), train.EarlyStopping(patience=3)])
    t.fit(loader(), epochs=20)
    assert t.epoch == 8 and same(weights(t.model), kept[4])


def test_stop_on_a_criterion():
    t = trainer(hooks=[train.StopOn(train.Repeated(train.Threshold("epoch.loss", "<", 10.0), 2))])
    t.fit(loader(), epochs=20)
    assert t.epoch == 2


def test_nan_guard_names_the_iteration():
    t = trainer(hooks=[train.NaNGuard(Every(4, "iteration"))])
    t.hooks.append(train.Call(lambda t: t.addresses.set("model.**", np.nan), After("iteration", 9)))
    with pytest.raises(TrainingError, match="the loss of iteration 10 is nan"):
        t.fit(loader(), epochs=5)
    assert t.iteration == 12


def test_schedule():
    class Halve:
        def __init__(self, optimizer):
            self.optimizer = optimizer

        def step(self, value=None):
            self.optimizer.param_groups[0]["lr"] /= 2

    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.08)
    hooks = [train.Schedule(Halve(optimizer)), train.Schedule(Halve(optimizer), Every(6, "iteration"), value="loss")]
    t = Trainer(model, nn.CrossEntropyLoss(), optimizer, hooks=hooks, progress=False)
    t.fit(loader(), epochs=3)
    assert optimizer.param_groups[0]["lr"] == 0.08 / 64 and t.session.stats.recordings <= 4
    t.hooks[1].value = "validation.loss"
    with pytest.raises(TrainingError, match="Schedule: there is no value 'validation.loss'; there are"):
        t.fit(loader(), epochs=1)


def test_what_is_printed(capsys):
    t = trainer(progress=True)
    t.fit(loader(), epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("epoch 1/2  loss 0.") and lines[1].endswith("iterations/s")
    assert "epoch    loss" in str(t.history)


def test_progress_bar():
    import io

    pytest.importorskip("tqdm")
    out = io.StringIO()
    t = trainer(hooks=[train.ProgressBar(Every(1, "iteration"), file=out)])
    t.fit(loader(), epochs=2)
    assert "epoch 1" in out.getvalue() and "epoch 2" in out.getvalue() and "loss=" in out.getvalue()


def test_logs(tmp_path):
    hooks = [
        train.CSVLog(tmp_path / "log.csv"), train.JSONLog(tmp_path / "log.jsonl"), train.Pace(), train.Resources(),
        train.Statistics(pattern="*.weight"),
    ]  # fmt: skip
    t = trainer(hooks=hooks)
    t.fit(loader(), epochs=3)
    import csv
    import json

    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [int(r["epoch"]) for r in rows] == [1, 2, 3] == [r["epoch"] for r in lines]
    w = weights(t.model)[0].astype(np.float64)
    assert lines[-1]["statistics.0.weight.std"] == pytest.approx(w.std())
    assert float(rows[-1]["statistics.0.weight.mean"]) == pytest.approx(w.mean())
    assert lines[-1]["memory.tensors"] > 0 and lines[-1]["iterations_per_second"] > 0 and lines[-1]["seconds"] > 0
    assert "statistics.0.weight.grad.max" in lines[-1] and "statistics.0.bias.mean" not in lines[-1]


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    t = trainer(hooks=[train.TensorBoardLog(tmp_path / "log", Every(4, "iteration"))])
    t.fit(loader(), epochs=2)
    (path,) = (tmp_path / "log").iterdir()
    payload, at, found = path.read_bytes(), 0, {}
    while at < len(payload):  # records: length, its checksum, the message, its checksum
        size = int.from_bytes(payload[at : at + 8], "little")
        event = Event.FromString(payload[at + 12 : at + 12 + size])
        found |= {(v.tag, event.step): v.simple_value for v in event.summary.value}
        at += 16 + size
    assert {step for tag, step in found if tag == "loss"} == {4, 8, 12}
    assert found["loss", 12] == np.float32(t.values["loss"])


def test_tensorboard_is_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(TrainingError, match=r"pip install 'tapegrad\[tensorboard\]'"):
        train.TensorBoardLog(tmp_path)


def test_live_plot(tmp_path):
    pytest.importorskip("matplotlib")
    t = trainer(hooks=[train.LivePlot(tmp_path / "plot.png")])
    t.fit(loader(), epochs=2, validation=loader())
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_batches_of_other_shapes():
    x, y = points()
    t = trainer()
    t.fit(data.DataLoader([{"inputs": a, "targets": b} for a, b in zip(x, y, strict=True)], batch_size=16), epochs=1)

    class Own(Trainer):
        def loss_of(self, batch):
            return self.model(tg.tensor(batch)).square().mean()

    own = Own(network(), None, optim.SGD(network().parameters(), lr=0.1), progress=False)
    own.optimizer = optim.SGD(own.model.parameters(), lr=0.1)
    history = own.fit(data.DataLoader(x, batch_size=16), epochs=5)
    assert history["loss"][-1] < history["loss"][0]


ERRORS = [
    (lambda t: t.fit(loader()), "fit: say how long, as in fit.loader, epochs=3."),
    (lambda t: t.fit(loader(), epochs=-1), "fit: epochs is a whole number from 0, not -1"),
    (lambda t: t.fit(loader(), iterations=1.5), "fit: iterations is a whole number from 0, not 1.5"),
    (lambda t: t.fit([], epochs=1), "fit: the loader gave no batch"),
    (lambda t: t.fit([np.ones(3)], epochs=1), r"a batch is .input, target. or a dict .* not a ndarray"),
    (lambda t: t.fit([{"a": 1}], epochs=1), "a batch with the fields a has no 'inputs' and 'targets'"),
    (lambda t: t.evaluate([]), "evaluate: the loader gave no batch"),
    (lambda t: trainer(hooks=[print]), "Trainer: hooks are Hook objects, not a builtin"),
    (lambda t: trainer(metrics=["precise"]), "metrics: there is no 'precise'; there are accuracy"),
    (lambda t: trainer(metrics=["mae", "mae"]), "metrics: 'mae' is there twice"),
    (lambda t: trainer(metrics=[3]), "metrics: a int is no metric"),
    (lambda t: Every(0, "epoch"), "Every: the count is a number above 0, not 0"),
    (lambda t: Every(1, "hour"), "Every: the unit is one of 'iteration', 'epoch', 'second', not 'hour'"),
    (lambda t: After("epoch", 1.5), "After: epochs are counted in whole numbers, not 1.5"),
    (lambda t: On("end"), "On: the event is one of .* not 'end'"),
    (lambda t: train.Threshold("a", "=", 1), "Threshold: the comparison is one of"),
    (lambda t: train.Threshold("a", "<", 1).holds({"b": 1}), "Threshold: there is no value 'a'; there are b"),
    (lambda t: train.Extremum("a", "least"), "Extremum: the mode is 'min' or 'max'"),
    (lambda t: train.Extremum("a", margin=-1), "Extremum: the margin is a number from 0"),
    (lambda t: train.Repeated(train.Extremum("a"), 0), "Repeated: the count is a whole number from 1"),
    (lambda t: train.Extremum("a") & print, "criteria are combined with criteria, not with a builtin"),
    (lambda t: train.EarlyStopping(patience=0), "EarlyStopping: patience is a whole number from 1"),
    (lambda t: train.Checkpoint("x", keep=0), "Checkpoint: keep is a whole number from 1, or None"),
    (lambda t: train.Checkpoint("x", background=True), "Checkpoint: a checkpoint is of one moment"),
    (lambda t: train.TopK(0), "TopK: k is a whole number from 1"),
    (lambda t: train.F1(3, "binary"), "F1: average='binary' is for two classes, not 3"),
    (lambda t: train.F1(3, "all"), "F1: average is 'macro' or 'binary'"),
    (lambda t: train.Results([{"a": 1}]).best("b"), "Results: no training gave a 'b'"),
    (lambda t: train.sweep(print, []), "sweep: there are no settings"),
]  # fmt: skip


@pytest.mark.parametrize(("action", "message"), ERRORS)
def test_errors(action, message):
    with pytest.raises(TrainingError, match=message):
        action(trainer())


def test_an_error_of_the_model_says_where():
    x, y = points()
    with pytest.raises(tg.errors.ShapeError) as caught:
        trainer().fit([(x, y), (x[:, :2], y)], epochs=1)
    assert "in iteration 2, epoch 1" in caught.value.__notes__


def test_fit_within_fit():
    t = trainer(hooks=[train.Call(lambda t: t.fit(loader(), epochs=1), After("iteration", 1))])
    with pytest.raises(TrainingError, match="this trainer is training already"):
        t.fit(loader(), epochs=1)


def test_criteria_combined():
    low, high = train.Threshold("a", "<", 1), train.Threshold("b", ">", 1)
    values = {"a": 0.0, "b": 0.0}
    assert not (low & high).holds(values) and (low | high).holds(values) and (~high).holds(values)
    best = train.Extremum("a", "max", margin=0.5)
    both = low & best
    assert [both.holds({"a": v}) for v in (0.1, 0.3, 0.7, float("nan"), 2.0)] == [True, False, True, False, False]
    state = both.state_dict()
    again = train.Threshold("a", "<", 1) & train.Extremum("a", "max", margin=0.5)
    again.load_state_dict(state)
    assert again.parts[1].best == 2.0


def test_sweep_makes_a_table():
    def one(lr, seed):
        if lr > 1:
            raise ValueError("too large")
        model = nn.Linear(3, 2)
        t = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=lr), progress=False, seed=seed)
        return {"loss": t.fit(loader(), epochs=2)["loss"][-1]}

    results = train.sweep(one, train.grid(lr=[0.01, 0.1, 10.0]))
    assert len(results) == 3 and results.best("loss")["lr"] == 0.1
    assert "ValueError: too large (one, line" in results.rows[2]["error"] and "error" in str(results)
    side_by_side = train.sweep(one, train.grid(lr=[0.01, 0.1]), threads=2)
    assert side_by_side.rows == results.rows[:2]


def test_trainers_side_by_side_compute_what_they_compute_alone():
    """One thread each, all at once, with dropout and shuffling: the same bits as one after the other."""

    def one(seed: int) -> list[np.ndarray]:
        tg.seed(seed)
        model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))
        t = Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()), progress=False, seed=seed)
        t.fit(data.DataLoader(points(), batch_size=8, shuffle=True, seed=seed), epochs=20, validation=loader())
        return weights(model)

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(one, range(4)))
    alone = [one(seed) for seed in range(4)]
    assert all(same(a, b) for a, b in zip(together, alone, strict=True))
    assert not same(alone[0], alone[1])


def test_trainers_take_turns():
    """Two trainers in one thread, an epoch each in turn: neither sees the other but for the random numbers they share."""
    first, second = trainer(), trainer()
    for model in (first.model, second.model):
        model[2].p = 0.0
    batches = loader(), loader()
    for _ in range(3):
        first.fit(batches[0], epochs=1)
        second.fit(batches[1], epochs=1)
    whole = trainer()
    whole.model[2].p = 0.0
    whole.fit(loader(), epochs=3)
    assert same(weights(first.model), weights(whole.model)) and same(weights(second.model), weights(whole.model))


def test_clipping_limits_and_averages_are_part_of_the_session(tmp_path):
    def made():
        model = network()
        average = optim.ExponentialMovingAverage(model.parameters(), decay=0.9)
        return Trainer(
            model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.5), progress=False, seed=2,
            clip_grad_norm=0.01, after_step=[optim.MaxNorm(0.5, "*.weight")], average=average,
        )  # fmt: skip

    t = made()
    t.fit(loader(), epochs=3)
    assert t.session.stats.recordings <= 3 and t.session.stats.replays >= 15
    model = network()
    optimizer, limit = optim.SGD(model.parameters(), lr=0.5), optim.MaxNorm(0.5, "*.weight")
    average = optim.ExponentialMovingAverage(model.parameters(), decay=0.9)
    tg.seed(2)
    batches = loader()
    for _ in range(3):
        for x, y in batches:
            loss = nn.CrossEntropyLoss()(model(tg.tensor(x)), tg.tensor(y))
            optimizer.zero_grad()
            loss.backward()
            assert nn.utils.clip_grad_norm_(model.parameters(), 0.01).item() > 0.01
            optimizer.step()
            limit(model)
            average.update()
    for a, b in zip([*weights(t.model), *t.average.averages], [*weights(model), *average.averages], strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-7)
    t.save(tmp_path)
    other = made()
    other.load(tmp_path)
    assert other.average.steps == 18
    assert same([a.numpy() for a in other.average.averages], [a.numpy() for a in t.average.averages])
    with pytest.raises(TrainingError, match="clip_grad_norm is a number above 0, not 0"):
        trainer(clip_grad_norm=0)
