"""A state file: replaced whole, checked before it is used."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from mood.core import state
from mood.core.errors import ArtifactError, OutputError
from mood.core.state import read_state, write_state

ARRAYS = {"one": np.arange(5.0), "two": np.zeros((0, 3), np.int64)}


@pytest.fixture
def path(tmp_path):
    write_state(tmp_path / "s", kind="monitor", arrays=ARRAYS, meta={"n": 1, "word": "größer"})
    return tmp_path / "s"


def test_what_is_written_is_read(path):
    arrays, meta = read_state(path, kind="monitor")
    assert meta == {"n": 1, "word": "größer"}
    assert {name: array.tolist() for name, array in arrays.items()} == {"one": [0, 1, 2, 3, 4], "two": []}
    write_state(path, kind="monitor", arrays={}, meta={"n": 2})
    assert read_state(path, kind="monitor") == ({}, {"n": 2})
    assert [item.name for item in path.parent.iterdir()] == ["s"]


def test_a_kill_while_writing_leaves_the_old_state(path, monkeypatch):
    def killed(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(state.os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_state(path, kind="monitor", arrays={}, meta={"n": 2})
    assert read_state(path, kind="monitor")[1]["n"] == 1


def test_every_damaged_byte_is_seen(path):
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(ArtifactError):
            read_state(path, kind="monitor")
    for length in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match="damaged, or no state"):
            read_state(path, kind="monitor")


def test_other_files_are_refused(path, tmp_path, monkeypatch):
    with pytest.raises(ArtifactError, match="holds the state of a monitor, that of a server was expected"):
        read_state(path, kind="server")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_state(tmp_path / "absent", kind="monitor")
    save_file(ARRAYS, path)
    with pytest.raises(ArtifactError, match="damaged, or no state"):
        read_state(path, kind="monitor")
    save_file(ARRAYS, path, metadata={"format": "mood.state/2"})
    with pytest.raises(ArtifactError, match="needs a newer mood-ood"):
        read_state(path, kind="monitor")
    monkeypatch.setattr(state, "MAX_STATE", 10)
    with pytest.raises(ArtifactError, match="larger than"):
        read_state(path, kind="monitor")


def test_where_nothing_can_be_written_it_says_so(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_state(tmp_path / "absent" / "s", kind="monitor", arrays={}, meta={})
