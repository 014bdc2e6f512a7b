"""Where the files that ship beside the code are: in a checkout, or under names of ours in an installed wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from streamgc.errors import ModelError

Asset = Literal["engines", "demo", "signaling"]


def asset_root(asset: Asset) -> Path:
    """The folder of shipped engines, the demo page or the signalling server. Raises ModelError where neither place
    has it.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / f"_{asset}", package.parent / asset):
        if folder.is_dir():
            return folder
    raise ModelError(f"this installation has no {asset} folder: install streamgc again")
