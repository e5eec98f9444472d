"""The program that is killed: `torture.workload DIRECTORY --seed S --run R [--finish] [--sabotage NAME]`.

It prints a line when it is about to open its database, works until its standard input ends, and then leaves.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from perdure import ActorSystem, Limits
from tests.acceptance.torture import sabotage
from tests.acceptance.torture.driver import Driver, Seen
from tests.acceptance.torture.facts import WORLD, FactFile, read_facts

# Torture kills what is innocent: nothing here may become a dead letter for it.
_DEATHS = 100_000
_EVICT_SECONDS = (60.0, 0.01)  # in every other run, turns that wait leave memory as soon as they may


async def _until_input_ends() -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())


async def _work(options: argparse.Namespace, diary: FactFile, seen: Seen) -> None:
    limits = Limits(restarts=1_000_000, deaths=_DEATHS, evict_after=_EVICT_SECONDS[int(options.run) % 2])
    async with ActorSystem(options.directory / "app.db", limits=limits) as system:
        diary.write("up")
        driver = Driver(system, options.seed, options.run, diary)
        working = asyncio.create_task(_drive(driver, seen, diary, finish=options.finish))
        ending = asyncio.create_task(_until_input_ends())
        await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working
        else:
            await working
            await ending


async def _drive(driver: Driver, seen: Seen, diary: FactFile, *, finish: bool) -> None:
    try:
        await driver.drive(seen, finish=finish)
        await driver.collect(seen)
        diary.write("done")
    except Exception:
        diary.write("surprise", text=traceback.format_exc())
        raise


def main(*arguments: str) -> None:
    """Run the program in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--run", type=int, required=True)
    parser.add_argument("--finish", action="store_true")
    parser.add_argument("--sabotage", choices=sorted(sabotage.WAYS))
    options = parser.parse_args(arguments)
    WORLD.open(options.directory, options.run)
    seen = Seen.in_diary(read_facts(options.directory / "diary"))
    diary = FactFile(options.directory / "diary", options.run)
    if options.sabotage:
        sabotage.WAYS[options.sabotage](options.run)
    print("ready", flush=True)  # noqa: T201  # the harness waits for it
    asyncio.run(_work(options, diary, seen))
