"""No search for circular garbage while a call starts; none in what the start has made."""

import subprocess
import sys

_CALL = """
import gc
from streamgc.call.garbage import postpone_search, spare_what_is_there
postpone_search()
assert not gc.isenabled()
import streamgc.call.run
assert gc.get_count()[0] > 10_000, "imports make little: this module is not needed"
spare_what_is_there()
assert gc.isenabled()
print(gc.get_freeze_count(), len(gc.get_objects()))
"""


def test_what_imports_made_is_never_looked_through() -> None:
    told = subprocess.run([sys.executable, "-c", _CALL], capture_output=True, text=True, check=True).stdout
    spared, searched = map(int, told.split())
    assert spared > 30_000
    assert searched < spared / 100
