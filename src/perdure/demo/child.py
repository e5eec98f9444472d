"""The process that `perdure demo` kills: it works, and says on standard output how far it is, a JSON object a line."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from perdure import ActorSystem
from perdure.demo.place import Place
from perdure.demo.research import PAGES, Researcher, World

LOOK_SECONDS = 0.05
INTERRUPTED = 130  # what shells report for a process that Ctrl-C ended


async def work(place: Place, world: World) -> None:
    """Ask the researcher, or rejoin what was asked before, and report until the answer is there."""
    Researcher.world = world
    async with ActorSystem(place.database) as system:
        researcher = system.get(Researcher, "python")
        receipt = await researcher.research.options(id=place.message).tell(place.question, PAGES)
        while await receipt.status() in {"pending", "running", "waiting"}:
            say(finished=await researcher.progress())
            await asyncio.sleep(LOOK_SECONDS)
        say(answer=await receipt.result())


def say(**facts: object) -> None:
    """One line to whoever reads. If nobody does any more, this process ends."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Entry of `python -m perdure.demo.child`."""
    given = argparse.ArgumentParser(prog="python -m perdure.demo.child", description=__doc__)
    given.add_argument("directory", type=Path)
    given.add_argument("question")
    given.add_argument("--fetch-seconds", type=float, default=0.0)
    given.add_argument("--model-seconds", type=float, default=0.0)
    arguments = given.parse_args()
    place = Place(arguments.directory, arguments.question)
    world = World(ledger=place.ledger, fetch_seconds=arguments.fetch_seconds, model_seconds=arguments.model_seconds)
    try:
        asyncio.run(work(place, world))
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
