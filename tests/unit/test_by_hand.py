"""What is done by hand reaches a running system."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure import Actor, ActorFailed, ActorSystem, Backoff, DeadLetterError, Limits, Retry, handler, step
from perdure.console.operate import Operator

broken: set[str] = set()
ran: list[str] = []


@step(retry=Retry(1))
async def effect(name: str) -> str:
    """Fails while its name is among the broken ones."""
    ran.append(name)
    if name in broken:
        raise ValueError(name)
    return name


class Worker(Actor, kind="by hand.worker", retry=Retry(2, backoff=Backoff(0))):
    done: list[str] = []

    @handler
    async def work(self, *, last: str) -> list[str]:
        """Two effects, of which the second may fail."""
        self.done = [await effect("first"), await effect(last)]
        return self.done

    @handler
    async def fail(self) -> None:
        """Fail while it is broken."""
        if "actor" in broken:
            raise ValueError("no")


async def test_a_letter_that_is_tried_again_runs_only_the_step_that_failed(tmp_path: Path) -> None:
    """What an agent had done before its message died is not done again when the cause is mended."""
    ran.clear()
    broken.add("second")
    async with ActorSystem(tmp_path / "a.db") as system:
        worker = system.get(Worker, "w")
        with pytest.raises(DeadLetterError):
            await worker.work.options(id="job")(last="second")
        assert ran == ["first", "second", "second"]
        broken.clear()
        await worker.work(last="other")  # the letter is not the first message that this activation sees
        operator = Operator(tmp_path / "a.db")
        assert operator.letters("ValueError") == ["job"]
        await operator.retry("job")
        assert await system.receipt("job", Worker.work).result(timeout=20) == ["first", "second"]
    assert ran == ["first", "second", "second", "first", "other", "second"]


async def test_a_failed_actor_is_restarted_beside_a_running_system(tmp_path: Path) -> None:
    """Mail that waited for a failed actor is handled as soon as somebody restarts it."""
    async with ActorSystem(tmp_path / "a.db", limits=Limits(restarts=0)) as system:
        worker = system.get(Worker, "w")
        broken.add("actor")
        with pytest.raises(ActorFailed):
            await worker.fail()
        broken.clear()
        kept = await worker.work.tell(last="kept")
        with pytest.raises(ActorFailed, match=r"perdure restart by hand\.worker/w"):
            await worker.work(last="refused")
        await Operator(tmp_path / "a.db").restart("by hand.worker/w")
        assert await kept.result(timeout=20) == ["first", "kept"]
