"""`python -m nimbusd` is `nimbusd`, the daemon."""

from nimbusd.daemon import main

main()
