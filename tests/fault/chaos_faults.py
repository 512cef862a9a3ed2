"""What the chaos command does to its processes: one fault after the other, and what follows each a while later."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import redis

from tests.fault.chaos_stage import Actor, Stage

SLICE = 0.05
#: Seconds that a warm or cold shutdown may take before it counts as stuck. A process of billiard waits for up to 30 s
#: for its parent to read its last result, which a parent that shuts down may not do: see _ensure_messages_consumed.
ENDING_LIMIT = 45.0
#: The exit code of a command that finds no server; and for how many seconds after one went that may be so.
NO_SERVER = 3
AWAY = 10.0
#: How often each is drawn, if it is among those asked for.
WEIGHTS = {"kill": 4, "child": 5, "main": 2, "stop": 4, "term": 3, "quit": 1, "monitor": 2, "client": 2, "restart": 1}
FAULTS = tuple(WEIGHTS)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fault:
    """Something that was done, when, and to whom."""

    kind: str
    at: float
    target: str
    detail: str = ""


class Chaos:
    """Draws faults from a seed and does them. A worker is disturbed only while another one is well."""

    def __init__(self, stage: Stage, seed: int, kinds: Sequence[str], every: float) -> None:
        self._stage = stage
        self._chance = random.Random(f"faults-{seed}")
        self._kinds = list(kinds)
        self._every = every
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._ending: dict[str, float] = {}
        self._asked: set[str] = set()
        self._server_down = False
        self._server_left = -AWAY
        self._actions: dict[str, Callable[[], Fault | None]] = {
            "kill": self._kill,
            "child": self._child,
            "main": self._main,
            "stop": self._stop,
            "term": lambda: self._shutdown("term", signal.SIGTERM),
            "quit": lambda: self._shutdown("quit", signal.SIGQUIT),
            "monitor": lambda: self._kill_helper("monitor", [self._stage.monitor]),
            "client": lambda: self._kill_helper("client", self._stage.clients),
            "restart": self._restart,
        }
        self.done: list[Fault] = []
        self.complaints: list[str] = []

    def start_clients(self) -> None:
        for client in self._stage.clients:
            client.start()

    def rage(self, seconds: float) -> None:
        """Does faults until the time is up or every client has done its work."""
        ends = time.monotonic() + seconds
        due = time.monotonic() + self._gap()
        while time.monotonic() < ends and not self.finished():
            self._tend()
            if time.monotonic() >= due:
                self._one()
                due = time.monotonic() + self._gap()
            threading.Event().wait(SLICE)

    def calm(self, patience: float, progress: Callable[[], int]) -> bool:
        """Waits for the clients, as long as ``progress()`` grows within ``patience`` seconds. False if it stuck."""
        best, since = -1, time.monotonic()
        while not (self.finished() and not self._later and all(not worker.trouble for worker in self._stage.workers)):
            self._tend()
            if not self._server_down and (now := progress()) > best:
                best, since = now, time.monotonic()
            if time.monotonic() - since > patience:
                return False
            threading.Event().wait(SLICE)
        return True

    def finished(self) -> bool:
        return all(client.done for client in self._stage.clients)

    def _gap(self) -> float:
        return self._chance.uniform(0.5, 1.5) * self._every

    def _one(self) -> None:
        """Does a fault; another one if the one that was drawn cannot be done now."""
        weights = [WEIGHTS[kind] for kind in self._kinds]
        for kind in self._chance.choices(self._kinds, weights, k=4) if self._kinds else ():
            if not self._server_down and (fault := self._actions[kind]()) is not None:
                logger.info("%s %s %s", fault.kind, fault.target, fault.detail)
                self.done.append(fault)
                return

    def _in(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), action))

    def _tend(self) -> None:
        """Does what is due, and starts again who has ended."""
        while self._later and self._later[0][0] <= time.monotonic():
            heapq.heappop(self._later)[2]()
        if not self._server_down:
            try:
                self._stage.see()
            except redis.RedisError as error:
                self.complaints.append(f"the server does not answer although it runs: {error}")
        self._check_endings()
        for actor in self._stage.actors:
            if actor.process is not None and not actor.alive and actor.trouble != "down" and not actor.done:
                self._ended(actor)

    def _check_endings(self) -> None:
        """A worker that was told to end has to; here the longest task takes 2 s."""
        ending = [worker for worker in self._stage.workers if worker.alive and worker.trouble == "ending"]
        for worker in ending:
            since = time.monotonic() - self._ending[worker.name]
            if since > ENDING_LIMIT / 2 and worker.name not in self._asked:
                self._asked.add(worker.name)
                worker.send(signal.SIGUSR1, group=False)  # Celery writes into its log what each thread is at
            if since > ENDING_LIMIT:
                said = f"{worker.name} was told to end {ENDING_LIMIT:g} s ago and runs"
                self.complaints.append(f"{said}. Its log ends:\n{worker.words()}")
                worker.trouble = "killed"
                worker.send(signal.SIGKILL)

    def _ended(self, actor: Actor) -> None:
        code = 0 if actor.process is None else actor.process.returncode
        if actor in self._stage.clients and code == 0:
            actor.done, actor.trouble = True, ""
            return
        # What starts while the server is away says so and ends; whoever supervises it starts it again.
        refused = code == NO_SERVER and time.monotonic() - self._server_left < AWAY
        if actor.trouble not in ("ending", "killed") and not refused:
            actor.unexplained.append(code)
            self.complaints.append(
                f"{actor.name} ended with code {code} and nobody did it. Its log ends:\n{actor.words()}"
            )
        actor.trouble = "down"
        self._in(self._chance.uniform(0.1, 2.0), actor.start)

    def _victim(self) -> Actor | None:
        """A worker that is well, if another one is."""
        well = [worker for worker in self._stage.workers if not worker.trouble and worker.alive]
        return self._chance.choice(well) if len(well) > 1 else None

    def _fault(self, kind: str, target: str, detail: str = "") -> Fault:
        return Fault(kind, time.time(), target, detail)

    def _kill(self) -> Fault | None:
        """A whole node at once, as if its machine had gone."""
        worker = self._victim()
        if worker is None:
            return None
        worker.trouble = "killed"
        fault = self._fault("kill", worker.name)
        worker.send(signal.SIGKILL)
        return fault

    def _main(self) -> Fault | None:
        """The main process alone: its pool may go on for a while, unseen."""
        worker = self._victim()
        if worker is None:
            return None
        worker.trouble = "killed"
        fault = self._fault("main", worker.name)
        worker.send(signal.SIGKILL, group=False)
        return fault

    def _child(self) -> Fault | None:
        well = [worker for worker in self._stage.workers if not worker.trouble and worker.alive]
        pool = [(worker, pid) for worker in well for pid in worker.pool()]
        if not pool:
            return None
        worker, pid = self._chance.choice(pool)
        fault = self._fault("child", worker.name, str(pid))
        _send(pid, signal.SIGKILL)
        return fault

    def _stop(self) -> Fault | None:
        """A hang of 1 to 6 s: of the whole node, of its main process or of one of its pool."""
        worker = self._victim()
        if worker is None:
            return None
        part = self._chance.choice(["node", "node", "main", "child"])
        seconds = self._chance.uniform(1.0, 6.0)
        fault = self._fault("stop", worker.name, f"{part} for {seconds:.1f} s")
        worker.trouble = "stopped"
        pool = worker.pool()
        pid = self._chance.choice(pool) if part == "child" and pool else worker.pid
        group = part == "node"

        def go_on() -> None:
            if worker.trouble == "stopped":
                worker.trouble = ""
            worker.send(signal.SIGCONT) if group else _send(pid, signal.SIGCONT)

        worker.send(signal.SIGSTOP) if group else _send(pid, signal.SIGSTOP)
        self._in(seconds, go_on)
        return fault

    def _shutdown(self, kind: str, number: signal.Signals) -> Fault | None:
        """Warm (SIGTERM) or cold (SIGQUIT)."""
        worker = self._victim()
        if worker is None:
            return None
        worker.trouble = "ending"
        fault = self._fault(kind, worker.name)
        worker.send(number, group=False)
        self._ending[worker.name] = time.monotonic()
        self._asked.discard(worker.name)
        return fault

    def _kill_helper(self, kind: str, actors: Sequence[Actor]) -> Fault | None:
        alive = [actor for actor in actors if actor.alive and not actor.trouble]
        if not alive:
            return None
        actor = self._chance.choice(alive)
        actor.trouble = "killed"
        fault = self._fault(kind, actor.name)
        actor.send(signal.SIGKILL)
        return fault

    def _restart(self) -> Fault | None:
        """The server goes, and comes back with its data."""
        number = self._chance.choice([signal.SIGTERM, signal.SIGKILL])
        away = self._chance.uniform(0.1, 3.0)
        fault = self._fault("restart", "server", f"{number.name}, away for {away:.1f} s")
        self._server_down, self._server_left = True, time.monotonic()
        self._stage.server.kill(number)
        self._stage.server.process.wait(10)

        def back() -> None:
            self._stage.server.start()
            self._server_down = False

        self._in(away, back)
        return fault


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        logger.info("process %d has just ended", pid)
