"""State that moves: one file that is replaced whole, and that a kill at any moment leaves as it was before or after.

A safetensors file whose metadata say what it is, with the sha256 of everything in it. All of it is checked before any
of it is used, and nothing in it is ever executed.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mood.core.errors import ArtifactError, OutputError

FORMAT = "mood.state/1"

# A state is bounded; a file beyond this was made to exhaust memory.
MAX_STATE = 1 << 30


def write_state(
    path: str | os.PathLike[str], *, kind: str, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]
) -> None:
    """Replace a state by a new one, in one step.

    Args:
        path: of the file; folders above it must be there.
        kind: what it is ("monitor"); `read_state` asks for it.
        arrays: by name.
        meta: the rest, as JSON.

    Raises:
        OutputError: nothing can be written there.
    """
    from safetensors.numpy import save

    path = Path(path)
    held = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps({"kind": kind, "meta": dict(meta)}, sort_keys=True)
    content = save(held, metadata={"format": FORMAT, "content": text, "sha256": _checksum(text, held)})
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"the state cannot be written to {path}: {error.strerror}") from error


def read_state(path: str | os.PathLike[str], *, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `write_state` wrote, after all of it was checked.

    Raises:
        ArtifactError: it cannot be read, is damaged, of another kind, or nothing that mood wrote.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    damaged = f"{path} is damaged, or no state that mood wrote: put back a copy of it, or begin with a new file"
    try:
        size = path.stat().st_size
        if size > MAX_STATE:
            raise ArtifactError(f"{path} is larger than {MAX_STATE >> 20} MiB: mood writes no such state")
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise ArtifactError(f"the state {path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise ArtifactError(f"{damaged} ({error})") from error
    written = about.get("format", "")
    if written.startswith("mood.state/") and written != FORMAT:
        raise ArtifactError(f"{path} has the format {written}, this mood reads {FORMAT}: it needs a newer mood-ood")
    if written != FORMAT or about.get("sha256") != _checksum(about.get("content", ""), arrays):
        raise ArtifactError(damaged)
    content = json.loads(about["content"])
    if content["kind"] != kind:
        raise ArtifactError(f"{path} holds the state of a {content['kind']}, that of a {kind} was expected")
    return arrays, content["meta"]


def _checksum(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
