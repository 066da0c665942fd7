"""Sessions and threads: footgun p, and what is refused."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from paired import batches, mlp, state

import tapegrad as tg
from tapegrad import optim
from tapegrad.errors import TapeError
from tapegrad.nn import functional as F


def training(seed: int) -> tuple[list[float], dict[str, np.ndarray]]:
    """Some passes in a session of its own; every loss and the weights, to the last bit."""
    rng = np.random.default_rng(seed)
    model, session = mlp(), tg.Session()
    with tg.no_grad():
        for p in model.parameters():
            p.copy_(rng.normal(size=p.shape) * 0.3)
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for i, (x, y) in enumerate(batches(40, seed=seed)):
        with session:
            loss = F.cross_entropy(model(tg.tensor(x[: 8 - i % 2])), tg.tensor(y[: 8 - i % 2]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert session.stats.replays > 30
    return losses, state(model)


def bits(result) -> list:
    losses, parameters = result
    return [losses, [v.tobytes() for v in parameters.values()]]


def test_p_two_threads_with_a_session_each():
    wanted = [bits(training(0)), bits(training(1))]
    for _ in range(3):
        with ThreadPoolExecutor(2) as executor:
            assert [bits(r) for r in executor.map(training, [0, 1])] == wanted


def test_p_a_shared_model_is_read_by_two_threads():
    model, x = mlp(), tg.tensor(batches(1)[0][0])
    wanted = model(x).numpy()

    def evaluate(_):
        session, seen = tg.Session(), []
        for _ in range(50):
            with session, tg.no_grad():
                y = model(x)
            seen.append(y.numpy())
        return seen

    with ThreadPoolExecutor(3) as executor:
        for seen in executor.map(evaluate, range(3)):
            assert all(np.array_equal(y, wanted) for y in seen)


def test_p_values_go_from_thread_to_thread():
    """Computed in one thread's session, read in another, while the first goes on."""
    session, handed = tg.Session(), []
    with ThreadPoolExecutor(1) as executor:
        for i in range(50):
            with session:
                y = tg.full((100,), float(i)) * 2 + 1
            handed.append(executor.submit(lambda t: t.numpy()[0], y))
        assert [f.result() for f in handed] == [2.0 * i + 1 for i in range(50)]


def test_a_session_in_two_threads_at_once_is_refused():
    session = tg.Session()
    inside, leave, caught = threading.Event(), threading.Event(), []

    def hold():
        with session:
            y = tg.ones(3) * 2
            inside.set()
            leave.wait(30)
            caught.append(y.tolist())

    thread = threading.Thread(target=hold, name="first")
    thread.start()
    assert inside.wait(30)
    with (
        pytest.raises(
            TapeError,
            match=r"session was entered in thread 'MainThread' while thread 'first' is inside it; make a session for each",
        ),
        session,
    ):
        caught.append("entered")
    leave.set()
    thread.join()
    assert caught == [[2.0, 2.0, 2.0]]
    with session:  # once it is free, another thread may have it
        y = tg.ones(3) * 2
    assert y.tolist() == [2.0, 2.0, 2.0]


def test_a_session_moves_from_thread_to_thread():
    session, w = tg.Session(), tg.ones(4)

    def step(i):
        with session:
            y = tg.exp(w * float(i))
        return y.numpy()

    for i in range(12):
        with ThreadPoolExecutor(1) as executor:
            got = executor.submit(step, i).result() if i % 3 == 2 else step(i)
        np.testing.assert_array_equal(got, tg.exp(w * float(i)).numpy())


def test_a_loader_thread_makes_progress_during_long_sweeps():
    """Compiled code lets go of the interpreter: a Python loop in another thread goes on while a sweep runs."""
    session, w = tg.Session(), tg.normal(size=(1500, 1500))
    before = tg.get_num_threads()
    tg.set_num_threads(1)
    stop, counted = threading.Event(), [0]

    def load():
        while not stop.is_set():
            counted[0] += 1
            time.sleep(0)

    thread = threading.Thread(target=load)

    def step():
        with session:
            y = w
            for _ in range(3):
                y = tg.tanh(w @ y)
            total = y.sum()
        return total.item()

    try:
        for _ in range(4):
            step()
        thread.start()
        gained, took = [], []
        for _ in range(4):
            since, start = counted[0], time.perf_counter()
            step()
            gained.append(counted[0] - since)
            took.append(time.perf_counter() - start)
    finally:
        stop.set()
        thread.join()
        tg.set_num_threads(before)
    # held throughout, the loader would get a turn before and after each sweep alone
    assert max(gained) > 20, (gained, took)
