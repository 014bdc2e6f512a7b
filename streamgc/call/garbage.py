"""Python's search for circular garbage, where it would hold up a call.

What imports make stays until the end. Looking through it while it is made takes time from the start; looking through
all of it stands every thread still for 30 ms, once in a while.
"""

import gc


def postpone_search() -> None:
    """Look for no garbage until `spare_what_is_there`: for the time of importing."""
    gc.disable()


def spare_what_is_there() -> None:
    """Look for garbage from now on, but never again in what is there already."""
    gc.freeze()
    gc.enable()
