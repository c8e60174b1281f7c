"""A simulator in a thread of its own, for tests and programs that block.

Owns the thread, its event loop, and what was begun in it. Invariant: leaving the context ends all
of that, stops the simulator and joins the thread. It adds no behaviour to the simulator.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

import uvloop

from alpaca_broker.simulator.fault_run import play
from alpaca_broker.simulator.faults import Fault
from alpaca_broker.simulator.options import SimulatorOptions
from alpaca_broker.simulator.order_flow import Flow, plan
from alpaca_broker.simulator.server import Simulator
from alpaca_broker.simulator.stats import Stats

P = ParamSpec("P")
T = TypeVar("T")
_ANSWER_S = 30.0


class SimulatorThread:
    """Runs a `Simulator` with uvloop until the context is left."""

    def __init__(self, options: SimulatorOptions | None = None) -> None:
        self.simulator = Simulator(options)
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._done: asyncio.Event | None = None
        self._begun: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._main, name="alpaca-simulator")

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.simulator.url

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self.simulator.port

    @property
    def stats(self) -> Stats:
        """The live counters."""
        return self.simulator.stats

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._started.result(_ANSWER_S)
        except BaseException:
            self._thread.join()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        done = self._done
        assert done is not None
        self._started.result().call_soon_threadsafe(done.set)
        self._thread.join()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a plain function in the simulator's loop and return its result."""

        async def run() -> T:
            return function(*args, **kwargs)

        return asyncio.run_coroutine_threadsafe(run(), self._started.result()).result(_ANSWER_S)

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine in the simulator's loop, at the latest until the context is left.

        It goes on while the server is stopped: orders fill though nobody can be told.
        """

        async def owned() -> T:
            task = asyncio.current_task()
            assert task is not None
            self._begun.add(task)
            try:
                return await work
            finally:
                self._begun.discard(task)

        return asyncio.run_coroutine_threadsafe(owned(), self._started.result())

    def order_flow(
        self, key_id: str, *, events: int, seed: int = 1, per_second: float | None = None
    ) -> Future[int]:
        """Let a day of orders happen on a key's account: see `order_flow.plan`."""
        flow = Flow(self.call(self.simulator.by_hand, key_id), seed)
        return self.begin(flow.run(plan(seed, events), per_second))

    def play(self, faults: Iterable[Fault]) -> Future[None]:
        """Let faults happen, counted from now; done when the last one has ended."""
        return self.begin(play(self.simulator, list(faults)))

    def stop_server(self) -> None:
        """Stop listening, as if Alpaca were gone; accounts and orders stay."""
        loop = self._started.result()
        asyncio.run_coroutine_threadsafe(self.simulator.stop(), loop).result(_ANSWER_S)

    def start_server(self) -> None:
        """Listen again on the same port."""
        loop = self._started.result()
        asyncio.run_coroutine_threadsafe(self.simulator.start(), loop).result(_ANSWER_S)

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run())

    async def _run(self) -> None:
        self._done = asyncio.Event()
        try:
            await self.simulator.start()
        except Exception as error:
            self._started.set_exception(error)
            return
        self._started.set_result(asyncio.get_running_loop())
        try:
            await self._done.wait()
        finally:
            for task in self._begun:
                task.cancel()
            if self._begun:
                await asyncio.wait(self._begun)
            await self.simulator.stop()
