"""`python -m headstart train ...`: the command `headstart` where its folder is not on the path."""

from headstart.cli.command import main

main()
