"""Write all golden bytes anew: python -m tests.golden."""

from tests.golden import FOLDER, MAKERS, as_hex

for name, make in MAKERS.items():
    (FOLDER / f"{name}.hex").write_text(as_hex(make()))
    print(f"{name}: {len(make())} bytes")
