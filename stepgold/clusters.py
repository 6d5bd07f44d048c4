"""Ray: models on the actors of a cluster. The only module that imports ray.

The command that was started stays the only one that claims traces and writes to the database. It
hands out units of work, and each actor loads the model once:

* `ActorPool.map` runs a stage on whole units (the traces of a scoring window, a batch of texts) and
  yields each unit's results as they come, in any order;
* `Cluster.text_model` is a model of which each call runs on an actor. Prompts, stored replies and
  the budget stay here, so that nothing is paid for twice.

An actor, a worker process, or a node may die at any time: what it was working on runs again
elsewhere. The actors belong to the command and end with it, also if it is killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from math import floor
from typing import TYPE_CHECKING, Any

from stepgold.console import note
from traces import InputError, ModelUnavailable, ToolkitError, uninterrupted

# Before Ray is imported, which reads it then: it prints the logs of dead nodes on standard output,
# where a command's document is. What it would send about its use is the user's to turn on.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.exceptions import RayError, RayTaskError

if TYPE_CHECKING:
    from inference import GenerationRequest, TextModel
    from traces import ModelReply

CLIENT_PORT = "10001"
"""The port of Ray's client server, for programs outside the cluster."""
LOOK_EVERY_S = 0.1
"""How often a wait looks whether there was an interrupt."""
TRIES = 5
"""How many actors may die of a unit or a call, or in a row before they are ready."""
QUEUED = 2
"""Units that an actor has at once: it works on one while the next one travels."""
PATIENCE_S = 60.0
"""After this time without a free place on the cluster, the command says what it waits for."""
CONNECT_S = 10.0
"""How long an address may take to answer."""

Make = Callable[[], Any]
"""Loads what an actor works with; is sent to it, so it holds options and no secrets."""


@dataclass(frozen=True, slots=True)
class Places:
    """What each actor needs, and how many there may be."""

    fewest: int = 1
    """Actors that are started at once, whatever the amount of work."""
    most: int | None = None
    """Most actors; None for as many as the cluster has room for now."""
    gpus: float | None = None
    """GPUs of an actor; None for 1 if the cluster has any, else 0."""


class _Actor:
    """What runs on the cluster."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._work: Any = None

    def _loaded(self) -> str:
        """Load the model; the version of StepGold here."""
        self._work = self._make()
        return version("stepgold")


class _Worker(_Actor):
    """An actor for stages: one unit at a time, in the order given."""

    def hello(self) -> tuple[bool, Any]:
        return _answer(self._loaded)

    def run(self, method: str, *given: Any) -> tuple[bool, Any]:
        """The outcome of a method of what was loaded."""
        return _answer(lambda: getattr(self._work, method)(*given))


class _Caller(_Actor):
    """An actor for text models: many calls at once."""

    async def hello(self) -> tuple[bool, Any]:
        return await asyncio.to_thread(_answer, self._loaded)

    async def generate(self, request: GenerationRequest) -> tuple[bool, Any]:
        """The reply to a request."""
        try:
            return True, await self._work.generate(request)
        except ToolkitError as error:
            return False, _plain(error)


def _answer(work: Callable[[], Any]) -> tuple[bool, Any]:
    """(True, the result), or (False, the error for the user), which travels as a value."""
    try:
        return True, work()
    except ToolkitError as error:
        return False, _plain(error)


def _plain(error: ToolkitError) -> ToolkitError:
    """The error without its cause and traceback, which may not be possible to send."""
    return type(error)(error.what, where=error.where, remedy=error.remedy)


def _opened(answer: tuple[bool, Any]) -> Any:
    """The result of an actor.

    Raises:
        ToolkitError: the actor's.
    """
    fine, value = answer
    if not fine:
        raise value
    return value


@dataclass(slots=True)
class _Unit:
    """A unit of work."""

    given: Any
    deaths: int = 0
    """Actors that died while they worked on it."""


@dataclass(eq=False, slots=True)
class _Member:
    """An actor of a pool."""

    actor: Any
    hello: Any
    """What it will answer once the model is loaded."""
    ready: bool = False
    units: dict[Any, _Unit] = field(default_factory=dict)
    """What it works on, the oldest first, by the reference of the result."""
    calls: int = 0
    """Calls in flight."""


class Cluster:
    """A connection to a Ray cluster, and the actors of this command, until it is closed."""

    def __init__(self, address: str | None, places: Places) -> None:
        """Connect, or start a cluster on this machine if there is none.

        Args:
            address: HOST:PORT; None for RAY_ADDRESS, else a running cluster of this machine.
            places: what actors need.

        Raises:
            InputError: there is no such cluster, or no node can have what an actor needs.
        """
        self.places = places
        self._closing = ExitStack()
        asked = address or os.environ.get("RAY_ADDRESS") or None
        if not ray.is_initialized():  # else a notebook's connection is used, and left open
            before = signal.getsignal(signal.SIGTERM)
            with uninterrupted():
                _connect(asked)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # which Ray has replaced
            self._closing.callback(ray.shutdown)
        total = _resources()
        gpus = places.gpus if places.gpus is not None else float(total.get("GPU", 0) >= 1)
        self.gpus = gpus
        """GPUs of an actor that has the model itself."""
        if gpus > 0 and not any(node["Resources"].get("GPU", 0) >= gpus for node in _nodes()):
            if asked is None:
                self.close()
                raise InputError(
                    "This machine has no GPU that Ray can find.",
                    where="--gpus-per-actor",
                    remedy="use --gpus-per-actor 0, or name a cluster: --engine ray://HOST:PORT",
                )
            note(f"No node of the cluster has {gpus:g} GPUs yet: waiting for one to be added.")

    def close(self) -> None:
        """End the actors and the connection."""
        with uninterrupted():
            self._closing.close()

    def room(self, *, hosted: bool = False) -> int:
        """How many actors the cluster has room for now; one a node for calls to servers."""
        if self.places.most is not None:
            return self.places.most
        if hosted:
            return max(self.places.fewest, len(_nodes()))
        total = _resources()
        fits = total.get("GPU", 0) / self.gpus if self.gpus else total.get("CPU", 1)
        return max(self.places.fewest, floor(fits))

    def pool(self, make: Make) -> ActorPool:
        """Actors that each have what `make` loads."""
        pool = ActorPool(self, make)
        self._closing.callback(pool.close)
        return pool

    def text_model(self, spec: str, make: Callable[[], TextModel], *, local: bool) -> TextModel:
        """A model of which each call runs on an actor.

        Args:
            spec: the model as the user named it.
            make: makes it on an actor, with the keys in the environment of that node.
            local: whether it has weights; if not, it is made here as well, for its prompts.
        """
        if local:
            return RemoteWeights(self, spec, make)
        return RemoteModel(self, spec, make, make())

    def start(self, kind: type[Any], make: Make, *, hosted: bool = False) -> _Member:
        """Start an actor; it waits for its place on the cluster, on any node."""
        cpus, gpus = (0.01, 0) if hosted else (1, self.gpus)
        options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus}
        options["scheduling_strategy"] = "SPREAD"
        if kind is _Caller:
            options["max_concurrency"] = 1000
        actor = ray.remote(kind).options(**options).remote(make)
        return _Member(actor, actor.hello.remote())


def _nodes() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()
    return [node for node in nodes if node["Alive"]]


def _resources() -> dict[str, float]:
    found: dict[str, float] = ray.cluster_resources()
    return found


def _connect(asked: str | None) -> None:
    """Connect to a cluster.

    Args:
        asked: HOST:PORT; None for a cluster that `ray start` started here, else one for ourselves.

    Raises:
        InputError: the address leads to none.
    """
    client = asked is not None and asked.endswith(f":{CLIENT_PORT}") and "://" not in asked
    try:
        host, _, port = (asked or "").rpartition("://")[2].rpartition(":")
        if port.isdecimal():  # Ray itself tries for minutes, and cannot be interrupted
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
        ray.init(
            address=f"ray://{asked}" if client else asked,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (OSError, RuntimeError, ValueError, ImportError) as fault:
        raise InputError(
            f"There is no Ray cluster at '{asked or 'this machine'}': {_reason(fault)}",
            where="--engine",
            remedy="start one (ray start --head), and give the address that it prints:"
            " --engine ray://HOST:6379",
        ) from fault


class _Starts:
    """Whether actors start at all; several deaths in a row before they are ready end the run."""

    def __init__(self) -> None:
        self._failed = 0

    def greet(self, answer: tuple[bool, Any]) -> None:
        """An actor has loaded its model.

        Raises:
            ToolkitError: it cannot be loaded there.
            InputError: another version of StepGold is installed there.
        """
        there, here = _opened(answer), version("stepgold")
        if there != here:
            raise InputError(
                f"The cluster has StepGold {there}, and this command is {here}.",
                where="--engine",
                remedy=f"install it on all nodes: pip install stepgold=={here}",
            )
        self._failed = 0

    def died(self, error: Exception) -> None:
        """An actor ended before it was ready.

        Raises:
            InputError: the code cannot be imported there.
            ModelUnavailable: too many did.
        """
        self._failed += 1
        reason = _reason(error)
        if isinstance(error, RayTaskError) or "ModuleNotFoundError" in str(error):
            raise InputError(
                f"The actors cannot start: {reason}",
                where="--engine",
                remedy="install the same StepGold on all nodes",
            ) from error
        if self._failed >= TRIES:
            raise ModelUnavailable(
                f"{self._failed} actors in a row ended before they had loaded the model: {reason}",
                remedy="see the logs of the cluster; if memory is short, give --actors a lower MAX",
            ) from error


def _reason(error: BaseException) -> str:
    """The last line of what Ray says, which names the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if isinstance(error, RayTaskError) and lines else (lines or [repr(error)])[0]


class ActorPool:
    """Actors that run a stage on units; grows and shrinks with the work."""

    def __init__(self, cluster: Cluster, make: Make) -> None:
        self._cluster, self._make, self._most = cluster, make, cluster.room()
        self._members: list[_Member] = []
        self._starts = _Starts()
        self._since = time.monotonic()

    def ask(self, method: str) -> Any:
        """What a method says on one actor, e.g. the configuration of a model."""
        return next(iter(self.map([()], method=method, expected=1)))

    def map(
        self, units: Iterable[Any], *, method: str = "__call__", expected: int | None = None
    ) -> Iterator[Any]:
        """Yield what the method returns for each unit, in any order, each once.

        Args:
            units: arguments of one call each; read as actors have room for them.
            method: of what the actors have loaded; `()` as a unit gives it no argument.
            expected: about how many units there are; no more actors are started.

        Raises:
            ToolkitError: an actor's, or actors keep dying.
        """
        rest, again = iter(units), deque[_Unit]()
        exhausted, given = False, 0
        while True:
            ahead = 0 if exhausted else max(1, (expected or 1) - given)
            self._grow(len(again) + ahead)
            while (member := self._free()) is not None:
                unit = again.popleft() if again else None
                if unit is None and not exhausted:
                    unit = next(map(_Unit, rest), None)
                    exhausted, given = unit is None, given + 1
                if unit is None:
                    break
                self._send(member, method, unit)
            if exhausted and not again and not self._working():
                return
            if exhausted and not again:
                self._release_idle()
            yield from self._collect(again)

    def close(self) -> None:
        """End the actors."""
        while self._members:
            _end(self._members.pop())

    def _working(self) -> int:
        return sum(len(member.units) for member in self._members)

    def _grow(self, ahead: int) -> None:
        """Have an actor for each unit that no actor has yet, within the bounds."""
        busy = sum(bool(member.units) for member in self._members)
        wanted = max(busy + ahead, self._cluster.places.fewest)
        while len(self._members) < min(wanted, self._most):
            with uninterrupted():
                self._members.append(self._cluster.start(_Worker, self._make))

    def _release_idle(self) -> None:
        """Give back the places of actors for which nothing is left to do."""
        idle = [member for member in self._members if not member.units]
        for member in idle[: max(0, len(self._members) - self._cluster.places.fewest)]:
            self._members.remove(member)
            _end(member)

    def _free(self) -> _Member | None:
        """The ready actor with the least to do, if it can take one more unit."""
        free = (each for each in self._members if each.ready and len(each.units) < QUEUED)
        return min(free, key=lambda each: len(each.units), default=None)

    def _send(self, member: _Member, method: str, unit: _Unit) -> None:
        given = () if unit.given == () else (unit.given,)
        with uninterrupted():
            member.units[member.actor.run.remote(method, *given)] = unit

    def _collect(self, again: deque[_Unit]) -> Iterator[Any]:
        """Wait a moment, and yield the results that have come; `again` gets the units lost."""
        owners = {ref: member for member in self._members for ref in member.units}
        owners |= {member.hello: member for member in self._members if not member.ready}
        if not owners:
            return
        with uninterrupted():
            done, _ = ray.wait(list(owners), num_returns=1, timeout=LOOK_EVERY_S)
        if not done and not any(member.ready for member in self._members):
            self._tell_waiting()
        for ref in done:
            member = owners[ref]
            if member not in self._members:  # died with another of its units in this round
                continue
            try:
                with uninterrupted():
                    answer = ray.get(ref)
            except RayError as error:
                self._lost(member, error, again)
                continue
            if ref is member.hello:
                member.ready = True
                self._starts.greet(answer)
            else:
                del member.units[ref]
                yield _opened(answer)

    def _lost(self, member: _Member, error: RayError, again: deque[_Unit]) -> None:
        """Take over the units of an actor that died.

        Raises:
            RayTaskError: the actor is well, and the stage has a defect.
            ModelUnavailable: actors keep dying of this unit, or before they are ready.
        """
        if not member.ready:
            self._members.remove(member)
            _end(member)
            self._starts.died(error)
            return
        if isinstance(error, RayTaskError):
            raise error
        self._members.remove(member)
        _end(member)
        units = list(member.units.values())
        if units:
            units[0].deaths += 1
            if units[0].deaths >= TRIES:
                raise ModelUnavailable(
                    f"{TRIES} actors died of the same unit of work: {_reason(error)}",
                    remedy="see the logs of the cluster; what is labeled is kept, and the same"
                    " command goes on",
                ) from error
        again.extend(units)

    def _tell_waiting(self) -> None:
        if time.monotonic() - self._since > PATIENCE_S:
            gpus = f"{self._cluster.gpus:g} GPUs"
            note(f"Waiting for the cluster to place an actor (1 CPU, {gpus}) and load the model.")
            self._since = float("inf")


def _end(member: _Member) -> None:
    # The actor may be gone, and so may the cluster.
    with suppress(RayError, RuntimeError, ValueError):
        ray.kill(member.actor)


class RemoteModel:
    """A text model of which each call runs on an actor of a cluster.

    All of it but the constructor runs on the event loop of the caller.
    """

    def __init__(self, cluster: Cluster, spec: str, make: Make, here: TextModel | None) -> None:
        """Start no actor yet.

        Args:
            cluster: where calls run.
            spec: the model as the user named it.
            make: makes the model on an actor.
            here: the same model on this machine, for its prompts; None if it has weights.
        """
        self._cluster, self._make, self._here = cluster, make, here
        self._members: list[_Member] = []
        self._most = cluster.room(hosted=here is not None)
        self.spec, self.hosted = spec, here is not None and here.hosted
        self.concurrency = self._most if here is None else here.concurrency
        """Calls in flight over all actors; one a set of weights."""
        self.options = getattr(here, "options", {})
        """The fields that the model adds to every request."""
        self._starts = _Starts()
        self._greetings: set[asyncio.Task[None]] = set()
        self._changed: asyncio.Event | None = None
        self._failure: Exception | None = None

    def rendered(self, request: GenerationRequest) -> str | None:
        """The prompt that is sent instead of the messages; None if they themselves are."""
        render: Any = getattr(self._here, "rendered", lambda _: None)
        prompt: str | None = render(request)
        return prompt

    async def generate(self, request: GenerationRequest) -> ModelReply:
        """Answer one request on the actor with the least to do.

        Raises:
            ModelError: the actor's model has no usable reply, or actors keep dying.
        """
        for _ in range(TRIES):
            member = await self._member()
            member.calls += 1
            try:
                reply: ModelReply = _opened(await member.actor.generate.remote(request))
            except RayTaskError:
                raise
            except RayError as error:
                lost = _reason(error)
                if member in self._members:
                    self._members.remove(member)
                    _end(member)
            else:
                return reply
            finally:
                member.calls -= 1
        raise ModelUnavailable(f"{TRIES} actors died of the same call: {lost}")

    async def aclose(self) -> None:
        """End the actors."""
        for task in self._greetings:
            task.cancel()
        while self._members:
            _end(self._members.pop())
        if self._here is not None:
            await self._here.aclose()

    async def _member(self) -> _Member:
        """A ready actor; starts one more if all have something to do."""
        while True:
            if self._failure is not None:
                raise self._failure
            self._grow()
            ready = [each for each in self._members if each.ready]
            if ready:
                return min(ready, key=lambda each: each.calls)
            if self._changed is None:
                self._changed = asyncio.Event()
            await self._changed.wait()

    def _grow(self) -> None:
        busy = all(each.ready and each.calls for each in self._members)
        wanted = min(len(self._members) + busy, self._most)
        for _ in range(max(wanted, self._cluster.places.fewest) - len(self._members)):
            hosted = self._here is not None
            member = self._cluster.start(_Caller, self._make, hosted=hosted)
            self._members.append(member)
            task = asyncio.create_task(self._greet(member))
            self._greetings.add(task)
            task.add_done_callback(self._greetings.discard)

    async def _greet(self, member: _Member) -> None:
        try:
            self._starts.greet(await member.hello)
            member.ready = True
        except RayError as error:
            self._members.remove(member)
            try:
                self._starts.died(error)
            except ToolkitError as failure:
                self._failure = failure
        except ToolkitError as failure:
            self._failure = failure
        finally:
            changed, self._changed = self._changed, None
            if changed is not None:
                changed.set()


class RemoteWeights(RemoteModel):
    """A model with weights, which are on the actors alone; its tokenizer is here."""

    def __init__(self, cluster: Cluster, spec: str, make: Make) -> None:
        super().__init__(cluster, spec, make, None)
        self._count: Callable[[str], int] | None = None

    def count_tokens(self, text: str) -> int:
        """Tokens of a text by the model's own tokenizer, excluding special tokens."""
        if self._count is None:
            from inference import token_counter

            self._count = token_counter(self.spec.partition(":")[2])
        return self._count(text)
