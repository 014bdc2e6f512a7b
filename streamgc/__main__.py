"""``python -m streamgc``."""

from streamgc.cli import main

main()
