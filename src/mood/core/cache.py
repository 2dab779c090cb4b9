"""Where mood keeps what it can make or fetch again: features and downloaded sets."""

import os
from pathlib import Path


def cache_home() -> Path:
    """The folder that `MOOD_CACHE` names, else `mood` in `XDG_CACHE_HOME`, else ~/.cache/mood; it need not be there."""
    if chosen := os.environ.get("MOOD_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mood"
