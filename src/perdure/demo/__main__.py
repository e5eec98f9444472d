"""`python -m perdure.demo`: the same as `perdure demo`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from perdure.demo.show import QUESTION, run_demo


def main() -> int:
    """Read the options and run the demo."""
    given = argparse.ArgumentParser(prog="python -m perdure.demo", description=run_demo.__doc__)
    given.add_argument("question", nargs="?", default=QUESTION)
    given.add_argument("--directory", type=Path)
    given.add_argument("--no-kill", action="store_true", help="press Ctrl-C when you like, and start it again")
    given.add_argument("--fresh", action="store_true", help="forget an earlier demo in the directory")
    arguments = given.parse_args()
    return run_demo(arguments.directory, arguments.question, not arguments.no_kill, fresh=arguments.fresh)


if __name__ == "__main__":
    sys.exit(main())
