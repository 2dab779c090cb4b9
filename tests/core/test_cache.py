"""The cache folder, wherever it is asked for."""

from pathlib import Path

import pytest

from mood.core.cache import cache_home
from mood.data.named import data_cache
from mood.recipes.extract import cache_folder


def test_the_environment_says_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    for chosen, found in ((str(tmp_path / "own"), tmp_path / "own"), ("~/mine", tmp_path / "home" / "mine")):
        monkeypatch.setenv("MOOD_CACHE", chosen)
        assert cache_home() == found
    monkeypatch.delenv("MOOD_CACHE")
    assert cache_home() == tmp_path / "xdg" / "mood"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_home() == tmp_path / "home" / ".cache" / "mood"


def test_sets_and_features_lie_side_by_side() -> None:
    assert (data_cache(), cache_folder()) == (cache_home() / "data", cache_home() / "features")
