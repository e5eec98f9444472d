"""`python -m perdure`: the command line, where no script is installed."""

from perdure.console.cli import main

main(prog_name="perdure")
