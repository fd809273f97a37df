"""`python -m edge` is `anyecg`."""

from edge.cli.app import main

main()
