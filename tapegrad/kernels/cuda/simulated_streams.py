"""The queues of a simulated device: nothing of one happens before something makes it.

That is the host, when it waits, or another queue that waits for a moment in this one. Work that another queue relied on, without
waiting for it, is then too late, or too early where the queue does not defer its work.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass

Moment = tuple[Hashable, int]  # a queue, and how much was asked of it until then


@dataclass(frozen=True, slots=True)
class Node:
    """One piece of work: "launch", "upload", "copy", "fill" or another's; what of, in words; and the doing of it."""

    kind: str
    detail: str
    action: Callable[[], None]


class Queue:
    """Work that waits, and how much was asked and done since the beginning."""

    __slots__ = ("asked", "done", "nodes")

    def __init__(self) -> None:
        self.nodes: deque[Node] = deque()
        self.asked = self.done = 0


class Queues:
    """The queues of a device, made as they are named. deferred: those whose work waits; the others do theirs when it is asked."""

    def __init__(self, deferred: Collection[Hashable] = ()):
        self.deferred = deferred
        self._queues: dict[Hashable, Queue] = {}
        self._lock = threading.RLock()

    def _of(self, name: Hashable) -> Queue:
        found = self._queues.get(name)
        return found if found is not None else self._queues.setdefault(name, Queue())

    def ask(self, name: Hashable, *nodes: Node) -> None:
        """Have something done in its turn."""
        with self._lock:
            queue = self._of(name)
            queue.nodes.extend(nodes)
            queue.asked += len(nodes)
            if name not in self.deferred:
                self.finish(name)

    def now(self, name: Hashable) -> Moment:
        """The moment when all that was asked of a queue until now is done."""
        with self._lock:
            return name, self._of(name).asked

    def wait(self, name: Hashable, moment: Moment | None) -> None:
        """Let what is asked of a queue from now on come behind a moment of another; None has passed."""
        if moment is not None:
            self.ask(name, Node("wait", f"for {moment}", lambda: self.finish(*moment)))

    def finish(self, name: Hashable, count: int | None = None) -> None:
        """Do the work of a queue up to a moment in it, or all of it, and that of others as far as it waits for them.

        What raises ends the work of all queues, as a kernel that fails does.
        """
        with self._lock:
            queue = self._of(name)
            until = queue.asked if count is None else count
            while queue.done < until:
                queue.done += 1
                node = queue.nodes.popleft()
                try:
                    node.action()
                except BaseException:
                    self._forget()
                    raise

    def step(self, name: Hashable) -> None:
        """Do the next piece of a queue's work, where there is one: a device may be as fast as that."""
        with self._lock:
            queue = self._of(name)
            if queue.nodes:
                self.finish(name, queue.done + 1)

    def _forget(self) -> None:
        for queue in self._queues.values():
            queue.nodes.clear()
            queue.done = queue.asked
