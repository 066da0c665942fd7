"""Sessions as users meet them: decorators, figures, explain, trace, clear, the switch that turns them off, errors, warnings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
from paired import batches, mlp

import tapegrad as tg
from tapegrad import optim
from tapegrad.errors import TapegradError
from tapegrad.nn import functional as F


def trained(passes: int = 6, session=None):
    """A session after some passes of training."""
    session = session or tg.Session()
    model = mlp(sizes=(6, 32, 32, 4), dtype=tg.float32)
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    def step(x, y):
        with session:
            loss = F.cross_entropy(model(tg.tensor(x.astype(np.float32))), tg.tensor(y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    for x, y in batches(passes, size=32):
        step(x, y)
    return session


def test_figures_of_a_training_session():
    stats = trained(20).stats
    assert stats.iterations == 20 and stats.variants >= 1
    assert stats.replays + stats.recordings == 20 and 1 <= stats.recordings <= 4
    assert stats.rows > 20
    assert 0 < stats.kernels < stats.rows
    assert 0 < stats.fused_rows <= stats.rows
    assert 0 < stats.planned_bytes < stats.unplanned_bytes
    assert stats.allocations == 0
    for name in ("iterations", "replays", "recordings", "variants", "rows", "kernels", "planned", "allocations"):
        assert name in repr(stats)


def test_figures_of_a_fresh_session():
    stats = tg.Session().stats
    for name in "iterations replays recordings variants rows kernels fused_rows planned_bytes unplanned_bytes".split():
        assert getattr(stats, name) == 0, name


def test_an_elementwise_chain_is_one_kernel():
    session, x = tg.Session(), tg.normal(size=(100,))

    def step():
        with session:
            return tg.tanh(1.5 * x + 0.3) * tg.sigmoid(x) + tg.exp(-x * x)

    for _ in range(5):
        y = step()
    assert session.stats.kernels == 1 and session.stats.rows == 9 == session.stats.fused_rows
    np.testing.assert_array_equal(y.numpy(), (tg.tanh(1.5 * x + 0.3) * tg.sigmoid(x) + tg.exp(-x * x)).numpy())


def test_what_nobody_needs_is_not_computed():
    session, x = tg.Session(), tg.normal(size=(20, 20))

    def step():
        with session:
            for _ in range(10):
                x @ x  # dropped
            return tg.exp(x)

    for _ in range(5):
        step()
    assert session.stats.kernels == 1


def test_explain_says_what_runs():
    text = trained().explain()
    assert "matmul" in text or "linear" in text
    assert "fused" in text and "bytes" in text.lower()
    assert len(text.splitlines()) > 5
    assert isinstance(tg.Session().explain(), str)


def test_trace_writes_times_of_kernels(tmp_path):
    path = tmp_path / "step.json"
    session = trained()
    session.trace(path)
    session.trace(str(path))
    found = json.loads(path.read_text())
    events = found["traceEvents"] if isinstance(found, dict) else found
    events = [e for e in events if e.get("ph") == "X"]
    assert len(events) == session.stats.kernels
    assert all(e["dur"] >= 0 and e["name"] for e in events)
    assert [e["ts"] for e in events] == sorted(e["ts"] for e in events)


def test_trace_changes_nothing(tmp_path):
    def losses(traced: bool) -> list[float]:
        tg.seed(1)
        model, session = mlp(dropout=0.2), tg.Session()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        seen = []
        for i, (x, y) in enumerate(batches(12)):
            with session:
                loss = F.cross_entropy(model(tg.tensor(x)), tg.tensor(y))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if traced and i in (4, 8):
                session.trace(tmp_path / "step.json")
                session.explain()
            seen.append(loss.item())
        return seen

    assert losses(True) == losses(False)


def test_decorators():
    session = tg.Session()

    @session
    def one(x, scale=1.0):
        """Doubles."""
        return x * 2 * scale

    @tg.session
    def two(x):
        return one(x) + 1

    x = tg.ones(3)
    for i in range(6):
        assert one(x, scale=float(i)).tolist() == [2.0 * i] * 3
        assert two(x).tolist() == [3.0] * 3
    assert one.session is session and isinstance(two.session, tg.Session) and two.session is not session
    assert one.__name__ == "one" and one.__doc__ == "Doubles."
    assert two.session.stats.iterations == 6 and two.session.stats.replays > 0
    step = session(lambda v: v + 1)
    assert step(x).tolist() == [2.0] * 3


def test_a_decorated_method():
    class Model:
        def __init__(self, scale):
            self.scale = tg.tensor(scale)

        @tg.session
        def step(self, x):
            return x * self.scale

    a, b = Model(2.0), Model(3.0)
    for _ in range(6):
        assert a.step(tg.ones(2)).tolist() == [2.0, 2.0]
        assert b.step(tg.ones(2)).tolist() == [3.0, 3.0]


def test_the_same_session_inside_itself():
    """A recursive function under a session is part of the outermost pass."""
    session = tg.Session()

    @session
    def power(x, n):
        return x if n == 0 else power(x, n - 1) * x

    for i in range(12):
        assert power(tg.full((2,), 1.5), i % 4).tolist() == [1.5 ** (i % 4 + 1)] * 2
    assert session.stats.replays > 0


def test_clear_forgets_and_goes_on():
    session, w = tg.Session(), tg.ones(3)
    held = []
    for i in range(12):
        with session:
            y = tg.exp(w * float(i))
        held.append(y)
        if i == 5:
            recorded = session.stats.recordings
            session.clear()
            assert session.stats.variants == 0
    assert session.stats.recordings > recorded
    for i, y in enumerate(held):
        np.testing.assert_array_equal(y.numpy(), tg.exp(w * float(i)).numpy())


def test_clear_inside_a_pass_is_refused():
    session = tg.Session()
    with session:
        y = tg.ones(3) * 2
        with pytest.raises(TapegradError, match="clear: the session is in use"):
            session.clear()
    assert y.tolist() == [2.0] * 3


def test_leaving_a_session_that_was_not_entered():
    session = tg.Session()
    with pytest.raises(TapegradError, match="session was left that was not entered; use it as `with session:`"):
        session.__exit__(None, None, None)
    with session:
        y = tg.ones(3) + 1
    with pytest.raises(TapegradError, match="not entered"):
        session.__exit__(None, None, None)
    assert y.tolist() == [2.0] * 3


def test_trace_of_a_session_that_never_ran(tmp_path):
    with pytest.raises(TapegradError, match=r"trace: .*pass"):
        tg.Session().trace(tmp_path / "step.json")
    assert not (tmp_path / "step.json").exists()


@pytest.mark.parametrize("wrong", [None, 3, "step", [1]])
def test_what_cannot_be_decorated(wrong):
    for decorate in (tg.session, tg.Session()):
        with pytest.raises(TypeError, match=r"session.*function"):
            decorate(wrong)


def test_a_session_that_keeps_recording_says_so_once():
    """The op and the line where passes part are named."""
    session = tg.Session()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in range(60):
            with session:
                y = tg.ones((2, 3))
                y = y.reshape((6,)) * 2
                z = tg.pad(y, (i, 0))
            assert z.shape == (6 + i,)
    said = [w for w in caught if "session" in str(w.message)]
    assert len(said) == 1
    text = str(said[0].message)
    assert "pad" in text and "test_session_use.py" in text and "tg.pad(y, (i, 0))" in text
    assert said[0].filename == __file__


def test_a_session_that_repeats_says_nothing():
    session = tg.Session()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(80):
            with session:
                y = tg.ones(3 + i % 5) * float(i)
            assert y.shape == (3 + i % 5,)


PROGRAM = """
    import sys
    import numpy as np
    import tapegrad as tg
    from tapegrad import nn, optim
    from tapegrad.nn import functional as F
    tg.seed(3)
    model = nn.Sequential(nn.Linear(4, 8, dtype=tg.float64), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3, dtype=tg.float64))
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    session = tg.Session()
    rng = np.random.default_rng(0)
    @tg.session
    def evaluate(x):
        return model(x).sum()
    for i in range(20):
        x, y = rng.normal(size=(5 + i % 2, 4)), rng.integers(0, 3, 5 + i % 2)
        with session:
            loss = F.cross_entropy(model(tg.tensor(x)), tg.tensor(y))
            if loss.item() < 10:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with tg.no_grad():
            print(float(loss), float(evaluate(tg.tensor(x))))
    print(session.stats.replays, evaluate.session.stats.replays)
    str(session.explain()), repr(session.stats), session.clear()
"""


def run(environment: dict) -> list[str]:
    file_environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        env=file_environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_sessions_switched_off_by_the_environment():
    off, on = run({"TAPEGRAD_SESSION": "off"}), run({"TAPEGRAD_SESSION": "on"})
    assert off[-1] == "0 0"
    assert all(int(n) > 8 for n in on[-1].split())
    wanted = np.array([[float(v) for v in line.split()] for line in off[:-1]])
    got = np.array([[float(v) for v in line.split()] for line in on[:-1]])
    np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_a_wrong_setting_is_an_error():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TAPEGRAD_SESSION": "perhaps"}
    program = "import tapegrad as tg\nwith tg.Session(): tg.ones(3) * 2"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode != 0 and "TAPEGRAD_SESSION" in done.stderr and "'perhaps'" in done.stderr
