"""The cache: what it holds is counted, what nobody reads is removed, and what is being written is left."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from mood.core.cache import cache_home
from mood.core.errors import InputError
from mood.models import Embedder, open_model
from mood.recipes.bench import kept as kept_module
from mood.recipes.bench.kept import Kept, SetScores, scores_folder
from mood.recipes.cache import CacheConfig, cache
from mood.recipes.extract import INDEX, alone, cache_folder, extract_features


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOOD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def held():
    """`held(folder, seconds)`: another process that has the lock of a set, since a record lock belongs to a process."""
    running = []

    def hold(folder, seconds):
        code = (
            "import sys, time, pathlib\n"
            "from mood.recipes.extract import alone\n"
            "with alone(pathlib.Path(sys.argv[1])):\n"
            "    print('held', flush=True)\n"
            "    time.sleep(float(sys.argv[2]))\n"
        )
        process = subprocess.Popen([sys.executable, "-c", code, folder, str(seconds)], stdout=subprocess.PIPE)
        running.append(process)
        assert process.stdout.readline() == b"held\n"

    yield hold
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def two_sets(tiny_network, stripes):
    embedder = Embedder(open_model(str(tiny_network)), device="cpu", precision="fp32")
    for count in (5, 7):
        extract_features(stripes(count), embedder)
    return sorted(path for path in cache_folder().iterdir() if path.is_dir())


def test_it_says_what_it_holds_and_leaves_no_locks(two_sets):
    assert len(two_sets) == 2
    result = cache(CacheConfig())
    assert (result.sets, result.cleared) == (2, False)
    assert result.size == sum(file.stat().st_size for folder in two_sets for file in folder.iterdir())
    assert f"{cache_home()}: holds 2 sets of features and 0 of scores" in result.summary()
    assert not list(cache_folder().glob("*.lock"))


def test_cleared_it_is_empty_and_is_filled_again(two_sets, tiny_network, stripes):
    assert "removed 2 sets of features" in cache(CacheConfig(clear=True)).summary()
    assert not list(cache_folder().iterdir())
    assert cache(CacheConfig()).sets == 0
    assert len(extract_features(stripes(5), Embedder(open_model(str(tiny_network)), device="cpu")).store) == 5


def test_what_was_read_lately_is_kept(two_sets, tiny_network, stripes):
    for folder in two_sets:
        os.utime(folder / INDEX, (0, time.time() - 40 * 24 * 3600))
    assert cache(CacheConfig(unused_days=30.0)).sets == 2
    extract_features(stripes(5), Embedder(open_model(str(tiny_network)), device="cpu", precision="fp32"))
    assert cache(CacheConfig(unused_days=30.0, clear=True)).sets == 1
    assert cache(CacheConfig()).sets == 1


def test_scores_of_a_benchmark_are_counted_and_removed_like_features(tmp_path, stripes):
    kept = Kept({"score": "msp"})
    about = {"chosen": "", "kind": "stored", "fit_seconds": 1.0, "score_seconds": 2.0, "passes": {}}
    for count in (5, 7):
        kept.keep(stripes(count), SetScores(values=np.arange(count) / 2, **about))
    files = list(scores_folder().iterdir())
    result = cache(CacheConfig())
    assert (result.sets, result.scores, result.size) == (0, 2, sum(file.stat().st_size for file in files))
    assert "holds 0 sets of features and 2 of scores" in result.summary()
    for file in files:
        os.utime(file, (0, time.time() - 40 * 24 * 3600))
    found = kept.of(stripes(5))
    assert found is not None
    np.testing.assert_array_equal(found.values, np.arange(5) / 2)
    assert cache(CacheConfig(unused_days=30.0, clear=True)).scores == 1
    assert kept.of(stripes(7)) is None
    assert kept.of(stripes(5)) is not None
    assert cache(CacheConfig(clear=True)).scores == 1
    assert not list(scores_folder().iterdir())


def test_scores_that_another_code_has_made_are_not_found(stripes, monkeypatch):
    one = SetScores(values=np.zeros(5), chosen="", kind="stored", fit_seconds=0.0, score_seconds=0.0, passes={})
    Kept({"score": "msp"}).keep(stripes(5), one)
    assert Kept({"score": "msp"}).of(stripes(5)) is not None
    monkeypatch.setattr(kept_module, "_code", lambda: "of a later version")
    assert Kept({"score": "msp"}).of(stripes(5)) is None


def test_what_another_run_is_writing_is_left(two_sets, held):
    held(two_sets[0], 60)
    result = cache(CacheConfig(clear=True))
    assert (result.sets, result.busy) == (1, 1)
    assert "1 are being written" in result.summary()
    assert two_sets[0].exists()


def test_the_next_in_line_takes_a_lock_of_its_own_where_the_old_one_is_gone(tmp_path, held):
    held(tmp_path / "set", 0.5)
    # This opens the other's file, waits, and finds that it was removed.
    with alone(tmp_path / "set") as free:
        assert free
        assert (tmp_path / "set.lock").exists()
    assert not (tmp_path / "set.lock").exists()


def test_days_are_not_negative():
    with pytest.raises(InputError, match="'unused_days' is -1.0; it should be greater than or equal to 0"):
        cache(CacheConfig(unused_days=-1.0))
