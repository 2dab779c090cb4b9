"""Which of several processes this one is, before any of them knows the others: torchrun tells by the environment."""

import os


def rank() -> int:
    """Number of this process among those that torchrun started, from 0; 0 where there is one."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def count() -> int:
    """How many processes torchrun started, on all machines; 1 where it started none."""
    return int(os.environ.get("WORLD_SIZE", "1"))
