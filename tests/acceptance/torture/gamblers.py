"""Actors whose turns depend on chance and the clock: what came out once must come out so in every replay."""

from __future__ import annotations

import asyncio

from perdure import AskTimeout, DeadlockError, StepError, fan_out, handler, sleep
from tests.acceptance.torture.actors import QUICK, Done, Witness, act, act_stubbornly, fail
from tests.acceptance.torture.facts import WORLD


class Gambler(Witness, kind="gambler", retry=QUICK, passivate_after=0.05):
    """Races, timeouts and failures among siblings: whatever came out must come out so again."""

    @handler
    async def first_of(self, tag: str, n: int) -> list[str]:
        """Begin three steps, go on with the first, and cancel the rest."""
        base = self.enter(tag)
        tasks = {asyncio.create_task(act(f"{tag}/{name}", base, [], [])): name for name in ("x", "y", "z")}
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await act(f"{tag}/after", base, [], [], " ".join(sorted(tasks[task] for task in done)))
        self.history.append(tag)
        return [f"{tag}/after"]

    @handler
    async def hurry(self, tag: str, n: int, sleeper: str, seconds: float) -> list[str]:
        """Ask somebody slow, without much patience."""
        base = self.enter(tag)
        asked = f"{tag}/q"
        try:
            async with asyncio.timeout(0.03):
                value = await self.system.get(Sleeper, sleeper).doze.options(id=asked)(asked, 0, seconds)
            WORLD.write("heard", id=asked, value=value)
            saw = "in time"
        except TimeoutError:
            saw = "too late"
        await act(f"{tag}/after", base, [], [asked], saw)
        self.history.append(tag)
        return [f"{tag}/after"]

    @handler
    async def bound(self, tag: str, n: int, sleeper: str, seconds: float) -> list[str]:
        """Ask somebody slow with a durable deadline, and take the answer later if it came too late."""
        base = self.enter(tag)
        asked = f"{tag}/q"
        saw = "in time"
        try:
            await self.system.get(Sleeper, sleeper).doze.options(id=asked, timeout=0.03)(asked, 0, seconds)
        except AskTimeout as late:
            saw = "too late"
            await act(f"{tag}/between", base, [], [asked], saw)
            value = await late.receipt.result()
            WORLD.write("heard", id=asked, value=value)
        await act(f"{tag}/after", base, [], [asked], saw)
        self.history.append(tag)
        return [f"{tag}/after"]

    @handler
    async def some_fail(self, tag: str, n: int) -> list[str]:
        """One of many fails for good, which cancels the others."""
        base = self.enter(tag)

        async def one(place: int) -> Done:
            return await (fail if place == 2 else act_stubbornly)(f"{tag}/{place}", base, [])

        try:
            await fan_out(one, range(5), concurrency=3)
            saw = "none"
        except StepError as error:
            saw = error.error_type
        await act(f"{tag}/last", base, [], [], saw)
        self.history.append(tag)
        return [f"{tag}/last"]


class Sleeper(Witness, kind="sleeper", retry=QUICK, passivate_after=0.05):
    """Answers late."""

    @handler
    async def doze(self, tag: str, n: int, seconds: float) -> int:
        """Sleep, then answer."""
        self.enter(tag)
        await sleep(seconds)
        self.history.append(tag)
        return len(self.history)


class Lover(Witness, kind="lover", retry=QUICK):
    """Two of them ask each other: if both do so at once, one of them learns that no answer can come."""

    @handler
    async def hug(self, tag: str, n: int, other: str) -> list[str]:
        """Ask the other one, who may be asking too."""
        base = self.enter(tag)
        asked = f"{tag}/q"
        try:
            value = await self.system.get(Lover, other).smile.options(id=asked)(asked, 0)
            WORLD.write("heard", id=asked, value=value)
            saw = "a smile"
        except DeadlockError as error:
            saw = " ".join(error.path)
        await act(f"{tag}/after", base, [], [asked], saw)
        self.history.append(tag)
        return [f"{tag}/after"]

    @handler
    async def smile(self, tag: str, n: int) -> int:
        """Answer at once, when it is one's turn."""
        self.enter(tag)
        self.history.append(tag)
        return len(self.history)
