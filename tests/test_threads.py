"""Threads have tapes of their own, kernels split among threads give the same numbers, and a forked child is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tapegrad as tg
from tapegrad.errors import TapeError
from tapegrad.kernels import jit
from tapegrad.kernels.launch import Step
from tapegrad.kernels.run import Ready


@pytest.fixture
def threads():
    before = tg.get_num_threads()
    yield
    tg.set_num_threads(before)


def in_thread(f, *args):
    """f's result, or its exception, from a new thread."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(f, *args).result(timeout=60)


def training(start: int) -> list[bytes]:
    """A few steps of a small network; every loss and the weights, to the last bit."""
    rng = np.random.default_rng(start)
    w1 = tg.tensor(rng.normal(size=(30, 20)), dtype=tg.float32, requires_grad=True)
    w2 = tg.tensor(rng.normal(size=(20, 5)), dtype=tg.float32, requires_grad=True)
    x = tg.tensor(rng.normal(size=(40, 30)), dtype=tg.float32)
    seen = []
    for _ in range(40):
        loss = tg.logsumexp(tg.tanh(x @ w1) @ w2, 1).mean() + (w1[3:5] ** 2).sum() * 0.01
        loss.backward()
        with tg.no_grad():
            for w in (w1, w2):
                w.copy_(w - 0.1 * w.grad)
                w.grad = None
        seen.append(loss.numpy().tobytes())
    return [*seen, w1.numpy().tobytes(), w2.numpy().tobytes()]


def test_two_threads_compute_what_one_does():
    wanted = [training(0), training(1)]
    for _ in range(3):
        with ThreadPoolExecutor(2) as executor:
            assert list(executor.map(training, [0, 1])) == wanted


def test_large_kernels_from_several_threads_at_once():
    x = tg.tensor(np.arange(1_000_000) % 1000, dtype=tg.float32)
    wanted = (tg.exp(x * 0.001) + x).sum().item()
    with ThreadPoolExecutor(4) as executor:
        for got in executor.map(lambda _: (tg.exp(x * 0.001) + x).sum().item(), range(16)):
            assert got == wanted


def test_a_recorded_tensor_belongs_to_its_thread():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    y = x * x
    for use in (
        lambda: y * 2,
        lambda: y.sum(),
        lambda: y[0],
        lambda: tg.concatenate([y, y]),
        lambda: tg.grad(lambda v: (v * y).sum())(y),
    ):
        with pytest.raises(TapeError, match=r"recorded by thread 'MainThread' and is used in thread .*\.detach\(\)"):
            in_thread(use)
    with pytest.raises(TapeError, match="recorded by thread 'MainThread'"):
        in_thread(lambda: y.backward(tg.ones(2)))
    assert in_thread(lambda: (y.detach() * 2).tolist()) == [2.0, 8.0]
    assert in_thread(lambda: y.tolist()) == [1.0, 4.0]

    def without():
        with tg.no_grad():
            return (y * 2).tolist()

    assert in_thread(without) == [2.0, 8.0]
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 4.0]


def test_a_leaf_may_be_used_anywhere():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    in_thread(lambda: (x * x).sum().backward())
    (x * 3).sum().backward()
    assert x.grad.tolist() == [5.0, 7.0]


def test_no_grad_and_anomalies_are_per_thread():
    x = tg.tensor([1.0], requires_grad=True)
    with tg.no_grad():
        assert in_thread(lambda: (x * 2).requires_grad)
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with tg.no_grad():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(30)
    assert (x * 2).requires_grad
    leave.set()
    thread.join()


def bits(*tensors) -> list[bytes]:
    return [t.numpy().tobytes() for t in tensors]


def test_the_number_of_threads_changes_no_result(threads, rng):
    x = tg.tensor(rng.normal(size=(1500, 1200)), dtype=tg.float32)
    y = tg.tensor(rng.normal(size=(1200,)), dtype=tg.float32)

    def compute():
        return bits(
            x + y,
            tg.exp(x),
            tg.sin(x) * y,
            x.T + 1,
            x.sum(),
            x.sum(0),
            x.sum(1),
            x.mean(1),
            x.max(0),
            x.argmax(1),
            x.var(0),
            tg.softmax(x),
            tg.logsumexp(x, 0),
            tg.sort(x, 1),
            x[[5, 700, 3]],
            x[x > 2],
            tg.cumsum(x, 1),
            tg.concatenate([x, x], 1),
            x > 0,
            x.T.copy(),
        )

    def product():
        return (x @ x.T).numpy(), (x.T @ x).numpy(), (x @ y).numpy()

    tg.set_num_threads(1)
    single, products = compute(), product()
    for count in (2, 3):
        tg.set_num_threads(count)
        assert tg.get_num_threads() == count
        assert compute() == single
        for got, wanted in zip(product(), products, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-3)


def test_random_numbers_do_not_depend_on_threads(threads):
    drawn = []
    for count in (1, 2):
        tg.set_num_threads(count)
        tg.seed(7)
        drawn.append(bits(tg.normal(size=(1000, 1000)), tg.uniform(size=(500_000,))))
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", None, True])
def test_wrong_numbers_of_threads(wrong):
    with pytest.raises(ValueError, match="set_num_threads"):
        tg.set_num_threads(wrong)


def test_changing_the_number_of_threads_while_another_computes(threads):
    x = tg.ones((2000, 1000))
    stop = threading.Event()

    def change():
        count = 1
        while not stop.is_set():
            count = count % 3 + 1
            tg.set_num_threads(count)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(60):
            assert tg.exp(x * 0.0).sum().item() == 2_000_000.0
    finally:
        stop.set()
        thread.join()


def run(program: str, **environment: str) -> str:
    """What a fresh Python prints, after a clean end."""
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **environment},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


def test_the_first_compilation_from_several_threads(tmp_path):
    program = """
        import threading
        import tapegrad as tg
        barrier, seen = threading.Barrier(4), []
        def work():
            barrier.wait()
            x = tg.tensor([1.0, 2.0, 3.0], requires_grad=True)
            (tg.tanh(x) * tg.exp(x)).sum().backward()
            seen.append(str((x.grad.tolist(), tg.sort(x).tolist())))
        threads = [threading.Thread(target=work) for _ in range(4)]
        for t in threads: t.start()
        for t in threads: t.join()
        assert len(seen) == 4 and len(set(seen)) == 1, seen
        print("fine")
        """
    cache = tmp_path / "kernels"
    cache.mkdir(mode=0o700)
    assert run(program, TAPEGRAD_CACHE=str(cache)) == "fine\n"
    assert run(program, TAPEGRAD_CACHE=str(cache)) == "fine\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("warm", [False, True])
def test_a_forked_child_is_refused(warm):
    program = f"""
        import os, sys
        import tapegrad as tg
        x = tg.tensor([1.0, 2.0], requires_grad=True)
        big = tg.ones((2000, 1000))
        if {warm}:
            (x * 2 + 1).sum().backward()
            tg.set_num_threads(2)
            (big + big).sum().item()
            y = tg.exp(x)
        def refused(use):
            try:
                use()
            except tg.errors.TapeError as error:
                return "forked child" in str(error) and "spawn" in str(error)
            return False
        child = os.fork()
        if child == 0:
            uses = [lambda: x * 2, lambda: tg.zeros(3), lambda: tg.tensor([1.0]), lambda: big + big,
                    lambda: x @ x, lambda: tg.normal(size=(3,)), lambda: big.sum(), lambda: tg.sort(x), lambda: (x.detach() + 1).sum()]
            if {warm}:
                uses.append(lambda: y.sum().backward())
            os._exit(0 if all([refused(u) for u in uses]) else 3)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, status
        assert (big + big).sum().item() == 4_000_000.0
        print("fine")
        """
    assert run(program) == "fine\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_ends_normally():
    program = """
        import multiprocessing, warnings
        warnings.simplefilter("ignore")
        import tapegrad as tg
        x = tg.ones((2000, 1000))
        tg.set_num_threads(2)
        (x + x).sum().item()
        def child():
            held = x.detach()
            del held
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join(30)
        assert process.exitcode == 0, process.exitcode
        print("fine")
        """
    assert run(program) == "fine\n"


def test_spawned_processes_work(tmp_path):
    script = tmp_path / "spawned.py"
    script.write_text(
        textwrap.dedent(
            """
            import multiprocessing
            import tapegrad as tg
            def square(t):
                return (t * t).sum().item(), t * 2
            if __name__ == "__main__":
                x = tg.tensor([1.0, 2.0])
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    total, doubled = pool.apply(square, (x,))
                assert total == 5.0 and doubled.tolist() == [2.0, 4.0]
                print("fine")
            """
        )
    )
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100)
    assert ended.stdout == "fine\n", ended.stderr[-3000:]


# the pool


def meeting() -> int:
    """A kernel of two chunks whose calls wait for each other: 0 where both ran at once, 1 where one waited in vain.

    args: two int64. The first counts those who came.
    """
    text = """define i32 @meeting(ptr %args, i64 %begin, i64 %end) {
entry:
  %at = load i64, ptr %args
  %come = inttoptr i64 %at to ptr
  %before = atomicrmw add ptr %come, i64 1 seq_cst
  br label %wait
wait:
  %k = phi i64 [0, %entry], [%k1, %wait]
  %k1 = add i64 %k, 1
  %now = load atomic i64, ptr %come seq_cst, align 8
  %both = icmp sge i64 %now, 2
  %late = icmp sgt i64 %k, 20000000
  %over = or i1 %both, %late
  br i1 %over, label %done, label %wait
done:
  %alone = xor i1 %both, true
  %status = zext i1 %alone to i32
  ret i32 %status
}
"""
    return jit.load("meeting", text, lambda: text)


def meet() -> bool:
    """Whether two threads worked on one kernel at the same time."""
    come = np.zeros(2, np.int64)
    ready = Ready(Step(meeting(), (0,), (), 8, 1, parts=1))
    return ready.run([come.ctypes.data], lambda _: 0) == 0


def eventually(condition, seconds: float = 20.0) -> bool:
    """Whether it becomes true: the machine's cores may be busy, and splitting pauses where they are."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_two_threads_work_at_once(threads):
    tg.set_num_threads(1)
    assert not meet()
    tg.set_num_threads(2)
    assert eventually(meet)
    tg.set_num_threads(3)
    assert eventually(meet)


def test_surplus_workers_end_and_missing_ones_start(threads):
    x = tg.ones((2000, 1000))

    def workers() -> set[str]:
        return {t.name for t in threading.enumerate() if t.name.startswith("tapegrad-")}

    for count in (4, 2, 1, 3, 1, 2):
        tg.set_num_threads(count)
        tg.exp(x)
        wanted = {f"tapegrad-{i}" for i in range(1, count)}
        assert eventually(lambda wanted=wanted: workers() == wanted), (count, workers())


def test_idle_workers_use_no_processor_time(threads):
    tg.set_num_threads(3)
    tg.exp(tg.ones((2000, 1000)))
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.4)
    assert time.process_time() - before < 0.1


def test_the_highest_status_comes_back(threads):
    text = """define i32 @halves(ptr %args, i64 %begin, i64 %end) {
  %second = icmp sgt i64 %begin, 0
  %status = select i1 %second, i32 2, i32 1
  ret i32 %status
}
"""
    ready = Ready(Step(jit.load("halves", text, lambda: text), (0,), (), 1000, 10))
    for count in (2, 3):
        tg.set_num_threads(count)
        assert {ready.run([0], lambda _: 0) for _ in range(100)} == {2}


def test_many_callers_and_many_threads(threads):
    """Four callers, a pool of four on however few cores: all get their answers."""
    tg.set_num_threads(4)
    x = tg.tensor(np.linspace(0, 1, 1 << 18), dtype=tg.float32)
    wanted = tg.exp(x).numpy().tobytes()

    def many(_):
        return all(tg.exp(x).numpy().tobytes() == wanted for _ in range(100))

    with ThreadPoolExecutor(4) as executor:
        assert all(executor.map(many, range(4)))


ENDINGS = {
    "at once": "",
    "by exit": "sys.exit(0)",
    "with a daemon that computes": """
        threading.Thread(target=lambda: [tg.exp(x) for _ in range(10**6)], daemon=True).start()
        time.sleep(0.05)""",
    "with a computation at exit": "atexit.register(lambda: (tg.exp(x), tg.set_num_threads(3), tg.exp(x)))",
    "with a thread that outlives the program": """
        threading.Thread(target=lambda: (time.sleep(0.2), tg.exp(x))).start()""",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_program_ends(ending):
    program = f"""
        import atexit, sys, threading, time
        import tapegrad as tg
        tg.set_num_threads(4)
        x = tg.ones((2000, 1000))
        tg.exp(x)
        {ENDINGS[ending].strip()}
        tg.exp(x)
        print("fine", flush=True)
        """
    if ending == "by exit":
        program = program.replace('print("fine", flush=True)', "").replace(
            "sys.exit", 'print("fine", flush=True); sys.exit'
        )
    for _ in range(3):
        start = time.monotonic()
        assert run(program) == "fine\n"
        assert time.monotonic() - start < 60


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise")
def test_an_interrupt_arrives():
    program = """
        import os, signal, sys, threading, time
        import tapegrad as tg
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started without
        tg.set_num_threads(3)
        x = tg.ones((2000, 1000))
        tg.exp(x)
        for _ in range(3):
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                deadline = time.monotonic() + 60
                while time.monotonic() < deadline:
                    y = tg.exp(x)
            except KeyboardInterrupt:
                assert tg.exp(x * 0).sum().item() == 2_000_000.0
            else:
                sys.exit("no interrupt")
        print("fine")
        """
    assert run(program) == "fine\n"


def test_where_there_is_no_futex(tmp_path):
    """Workers wait in Python instead, as on macOS and Windows; they help, use no processor time, and end."""
    program = f"""
        import sys, time
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from tapegrad.kernels import handoff, processor
        processor._FUTEX.clear()
        assert processor.futex() is None and "syscall" not in handoff.work()
        import tapegrad as tg
        from tapegrad.kernels.threads import POOL
        tg.set_num_threads(3)
        x = tg.ones((2000, 1000))
        for _ in range(20):
            assert tg.exp(x * 0).sum().item() == 2_000_000.0
        from test_threads import eventually, meet
        assert eventually(meet)
        assert eventually(lambda: POOL.resting == 2)
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.1
        assert eventually(meet)
        tg.set_num_threads(2)
        assert eventually(lambda: sorted(POOL.workers) == [1])
        tg.set_num_threads(4)
        assert eventually(meet)
        print("fine")
        """
    assert run(program, TAPEGRAD_CACHE=str(tmp_path)) == "fine\n"


def test_the_code_for_other_platforms_compiles():
    program = """
        import sys, types
        import llvmlite.binding as llvm
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        from tapegrad.kernels import handoff, processor, sweep
        for triple, platform in [("aarch64-unknown-linux-gnu", "linux"), ("arm64-apple-darwin", "darwin"),
                                 ("x86_64-pc-windows-msvc", "win32"), ("riscv64-unknown-linux-gnu", "linux")]:
            try:
                target = llvm.Target.from_triple(triple)
            except RuntimeError:  # this llvmlite was built without it
                continue
            processor.sys = types.SimpleNamespace(platform=platform)
            processor.architecture = lambda: {"arm64": "aarch64"}.get(triple.split("-")[0], triple.split("-")[0])
            modules = [[handoff.share(), handoff.spread("internal")], [handoff.work()], [handoff.admit()],
                       [handoff.spread("internal"), sweep.driver()]]
            for functions in modules:
                module = llvm.parse_assembly(handoff.module(*functions))
                module.verify()
                features = "+a,+m,+d" if "riscv" in triple else ""
                assembly = target.create_target_machine(features=features, opt=2, reloc="pic").emit_assembly(module).lower()
                if "aarch64" in triple and "sweep" in assembly:
                    assert "fpcr" in assembly and "syscall" in assembly
        print("fine")
        """
    assert run(program) == "fine\n"
