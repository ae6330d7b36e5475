"""`python -m outcross`: the command line."""

from outcross.cli.main import main

main()
