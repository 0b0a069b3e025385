"""`python -m nimbusd.cli` is `nimbusctl`."""

from nimbusd.cli import main

main()
