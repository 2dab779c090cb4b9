"""`mood extract`, and the cache that every recipe shares: images → features on disk, one pass for every score."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import numpy as np

from mood.core.cache import cache_home
from mood.core.config import Argument, NotInFingerprint, config
from mood.core.errors import ArtifactError, DataError, OutputError
from mood.recipes.settings import EmbeddingConfig, NetworkConfig, OutputConfig, PassConfig

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from mood.core.batch import Rejection
    from mood.core.feature_store import FeatureStore
    from mood.core.features import Features
    from mood.core.progress import Bar
    from mood.data import Augment, Source
    from mood.models import Embedder

FORMAT = 1
INDEX = "features.json"
COST = "cost.json"
# Images of a shard: enough for quick disks, few enough that a kill costs seconds.
SHARD = 2048

_log = logging.getLogger(__name__)

# A record lock belongs to a process: it keeps no thread of it out.
_one_thread = threading.Lock()


@config
class ExtractConfig(NetworkConfig, EmbeddingConfig, PassConfig, OutputConfig):
    """Turn images into features, for scores of your own or for `mood fit` on features."""

    data: Annotated[str, Argument("DATA")]
    """images: a folder, a Parquet file or glob, or a named set"""
    output: Annotated[Path, NotInFingerprint]
    """a Parquet file with ids, embedding, logits and labels"""
    model: str = "embedded"
    """timm name, a folder that mood wrote, or 'embedded'"""


@dataclass(frozen=True)
class ExtractResult:
    """What `mood extract` leaves."""

    output: Path
    images: int
    rejected: int
    weights: str = ""

    def summary(self) -> str:
        """One line for a person, and one about a foreign file."""
        said = f"features of {self.images} images are in {self.output}; {self.rejected} could not be read"
        return said + (f"\nweights: {self.weights}" if self.weights else "")


def extract(config: ExtractConfig) -> ExtractResult:
    """Extract features and write them as Parquet.

    Raises:
        MoodError: bad data, a network that cannot be had, an output that is taken.
    """
    import pyarrow.parquet as pq

    from mood.core.config import to_dict
    from mood.core.output import open_output
    from mood.data import open_source
    from mood.models import Embedder, open_model
    from mood.recipes.inputs import model_options

    source = open_source(config.data, roots=config.data_root)
    model = open_model(
        config.model,
        checkpoint=config.checkpoint,
        options=model_options(config.model_options),
        transform=model_options(config.transform_options),
    )
    embedder = Embedder(model, pool=config.pool, layer=config.layer, device=config.device, precision=config.precision)
    weights = "" if config.checkpoint is None else model.source
    settings = to_dict(config) | {
        "images": source.manifest.fingerprint,
        "weights": model.fingerprint(),
        "pool": embedder.pool,
        "layer": embedder.layer,
    }
    with open_output(config.output, settings, kind="file", overwrite=config.overwrite) as output:
        if output.finished:
            rows = pq.read_metadata(config.output).num_rows
            return ExtractResult(config.output, rows, len(source) - rows, weights)
        extracted = extract_features(source, embedder, batch_size=config.batch_size, workers=config.workers)
        writer = None
        for features in extracted.store:
            table = _table(features)
            writer = writer or pq.ParquetWriter(output.work, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
        output.commit()
    return ExtractResult(config.output, len(extracted.store), len(extracted.rejections), weights)


@dataclass(frozen=True, slots=True)
class Extracted:
    """Features of one source, and what could not be read.

    Attributes:
        store: a row per readable image, in the source's order.
        positions: (n,) int64, the row of each of them in the source's manifest.
        rejections: the other images.
        seconds: what the pass took when it was made; of one that was killed, as much as what went on after the kill
            would have taken for all. None where a version made it that did not look at the clock.
    """

    store: "FeatureStore"
    positions: np.ndarray
    rejections: "tuple[Rejection, ...]"
    seconds: float | None

    def rows(self, mask: np.ndarray) -> "FeatureStore":
        """The features of the readable ones among the images that a mask over the manifest chooses."""
        return self.store.select(mask[self.positions])


def cache_folder() -> Path:
    """Where features are kept."""
    return cache_home() / "features"


def extract_features(
    source: "Source",
    embedder: "Embedder",
    *,
    batch_size: int = 64,
    workers: int = 0,
    augmented_by: int | None = None,
) -> Extracted:
    """One pass over a source, or none where the cache has it.

    The key is made from weights, transform, images, pooling, layer, precision, device, batch size and format version:
    nothing stale can be found under it. A killed pass goes on at the first missing shard; what is damaged there is told
    in the log and made again.

    Args:
        source: the images.
        embedder: the network.
        batch_size: images a pass.
        workers: processes that decode.
        augmented_by: seed of one augmented view of each image, as fine-tuning varies it, in place of the image itself.

    Raises:
        DataError: not one image could be read.
        InputError: a batch size below 1, or workers below 0.
        OutputError: nothing can be written to the cache.
    """
    from mood.data.loader import check_loading

    # Also where the cache has the features, and nothing is loaded.
    check_loading(batch_size, workers)
    key = {**pass_key(embedder, batch_size), "images": source.manifest.fingerprint}
    if augmented_by is not None:
        key["augmented"] = {"seed": augmented_by, "by": asdict(_official())}
    folder = cache_folder() / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    if not _is_whole(folder, len(source)):
        with alone(folder):
            # Another run may have filled it meanwhile.
            if not _is_whole(folder, len(source), clear=True):
                _fill(folder, key, source, embedder, batch_size, workers, augmented_by)
    return _open(folder, source)


def pass_key(embedder: "Embedder", batch_size: int) -> dict[str, Any]:
    """All that decides what a pass gives but the images, as JSON."""
    key: dict[str, Any] = {
        "format": FORMAT,
        "model": embedder.model.fingerprint(),
        "pool": embedder.pool,
        "layer": embedder.layer,
        "precision": embedder.precision,
        "device": embedder.device.type,
        # The last bits of a matrix product may depend on the number of rows.
        "batch_size": batch_size,
    }
    if embedder.model.architecture is None:
        # The weights of a user's own module do not say what its code does with them.
        key["head"] = embedder.model.head_name
        key["probe"] = hashlib.sha256(embedder.probe().numpy().tobytes()).hexdigest()
    if embedder.inner:
        key["inner"] = list(embedder.inner)
    if embedder.decoder is not None and embedder.model.beside is not None:
        key["decoder"] = embedder.model.beside.fingerprint()
        key["masks"] = [embedder.masks, embedder.mask_seed]
    return key


def _fill(
    folder: Path,
    key: Mapping[str, Any],
    source: "Source",
    embedder: "Embedder",
    batch_size: int,
    workers: int,
    augmented_by: int | None,
) -> None:
    from mood.core.feature_store import FeatureStore
    from mood.core.progress import progress

    writer = FeatureStore.create(folder, key)
    began, before = time.perf_counter(), writer.next_shard * SHARD
    with progress(len(source), f"embed {source.name}", start=min(writer.next_shard * SHARD, len(source))) as bar:
        for index in range(writer.next_shard, -(-len(source) // SHARD)):
            start, stop = index * SHARD, min((index + 1) * SHARD, len(source))
            features, rejections = _embed(source, embedder, start, stop, batch_size, workers, bar, augmented_by)
            # The note first: where a shard stands, its note stands as well.
            _note(folder, index).write_text(json.dumps([(r.position, r.id, r.reason) for r in rejections]))
            writer.append(index, features)
    share = (len(source) - min(before, len(source))) / len(source)
    spent = (time.perf_counter() - began) / share if share else 0.0
    (folder / COST).write_text(json.dumps({"seconds": spent}))
    writer.finish()


@contextmanager
def alone(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Two runs or threads that want the same features: the second waits for the first, and finds them made.

    Args:
        folder: of one set of features.
        wait: for another run to end; else this gives False where there is one.

    Raises:
        OutputError: nothing can be written there.
    """
    if not _one_thread.acquire(blocking=wait):
        yield False
        return
    try:
        with _locked(folder, wait) as free:
            yield free
    finally:
        _one_thread.release()


@contextmanager
def _locked(folder: Path, wait: bool) -> Iterator[bool]:
    path = folder.with_suffix(".lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a")
        # A record lock, as in `core.output`: a worker process that outlives a killed run does not hold it.
        how = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
        try:
            fcntl.lockf(lock, how)
            # Whoever held it before has removed the file: then this lock is one that nobody else will look at.
            while not _is_still(lock, path):
                lock.close()
                lock = path.open("a")
                fcntl.lockf(lock, how)
        except BlockingIOError:
            lock.close()
            yield False
            return
    except OSError as error:
        raise OutputError(
            f"{folder.parent.name} are kept in {folder.parent}, and nothing can be written there ({error.strerror}): "
            "name another folder in the environment variable MOOD_CACHE"
        ) from error
    with lock:
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)


def _is_still(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _embed(
    source: "Source",
    embedder: "Embedder",
    start: int,
    stop: int,
    batch_size: int,
    workers: int,
    bar: "Bar",
    augmented_by: int | None,
) -> "tuple[Features, list[Rejection]]":
    from mood.core.features import Features
    from mood.data import TrainingImages, augmented, batches
    from mood.detector import embed

    transform = embedder.model.transform
    # An empty piece of the right width, should no image of the shard be readable.
    parts = [embed(embedder, ("",), np.zeros((1, *transform.size, 3), np.uint8))[:0]]
    if source.manifest.labels is not None:
        empty = parts[0]
        parts = [
            Features(
                empty.embedding,
                logits=empty.logits,
                labels=np.empty(0, np.int64),
                layers=empty.layers,
                reconstruction=empty.reconstruction,
            )
        ]
    rejections: list[Rejection] = []
    place: dict[str, int] = {"batch_size": batch_size, "workers": workers, "start": start, "stop": stop}
    if augmented_by is None:
        for batch in batches(source, transform, **place):
            if len(batch):
                parts.append(embed(embedder, batch.ids, batch.pixels, batch.labels))
            rejections += batch.rejections
            bar.advance(len(batch) + len(batch.rejections))
        return Features.concat(parts), rejections
    images = TrainingImages(
        source,
        (_official(),),
        size=transform.size,
        mean=transform.mean,
        std=transform.std,
        seed=augmented_by,
        max_pixels=transform.max_pixels,
    )
    for varied in augmented(images, **place):
        ids = tuple(source.manifest.ids[position] for position in varied.positions.tolist())
        if ids:
            labels = None if varied.labels is None else varied.labels.numpy()
            parts.append(embed(embedder, ids, varied.views[0], labels))
        rejections += varied.rejections
        bar.advance(len(ids) + len(varied.rejections))
    return Features.concat(parts), rejections


def _official() -> "Augment":
    """How the official code varies the images that it fits on: as it fine-tunes on them."""
    from mood.data import Augment

    return Augment.finetune()


def _note(folder: Path, index: int) -> Path:
    return folder / f"rejected-{index:05d}.json"


def _is_whole(folder: Path, images: int, *, clear: bool = False) -> bool:
    """Whether a pass over so many images is there, finished and undamaged.

    Args:
        folder: of one set of features.
        images: those that could not be read included.
        clear: remove what is damaged, and say so. It is ours, and nobody loses more than the time to make it again.
    """
    from mood.core.feature_store import FeatureStore

    index = folder / INDEX
    if not index.exists():
        return False
    try:
        if json.loads(index.read_text())["rows"] is None:
            return False
        found = len(FeatureStore(folder)) + len(_rejections(folder))
        if found != images:
            raise ArtifactError(f"{folder} is of {found} images, not of {images}")
        _seconds(folder)
    except (ArtifactError, ValueError, TypeError, LookupError) as error:
        if clear:
            _log.warning("features that were kept are damaged, and are made again: %s", error)
            shutil.rmtree(folder)
        return False
    return True


def _rejections(folder: Path) -> "tuple[Rejection, ...]":
    from mood.core.batch import Rejection

    return tuple(
        Rejection(*item) for path in sorted(folder.glob("rejected-*.json")) for item in json.loads(path.read_text())
    )


def _seconds(folder: Path) -> float | None:
    cost = folder / COST
    return json.loads(cost.read_text())["seconds"] if cost.exists() else None


def _open(folder: Path, source: "Source") -> Extracted:
    from mood.core.feature_store import FeatureStore

    store = FeatureStore(folder)
    # `mood cache` goes by the last use.
    with suppress(OSError):
        os.utime(folder / INDEX)
    rejections = _rejections(folder)
    readable = np.ones(len(source), bool)
    readable[[item.position for item in rejections]] = False
    if not readable.any():
        first = rejections[0] if rejections else None
        raise DataError(
            f"not one image of {source.name} could be read" + (f"; {first.id}: {first.reason}" if first else "")
        )
    return Extracted(store, np.flatnonzero(readable), rejections, _seconds(folder))


def _table(features: "Features") -> "pa.Table":
    import pyarrow as pa

    def matrix(values: "Tensor") -> "pa.Array":
        flat = values.numpy()
        return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])

    columns = {"ids": pa.array(features.ids), "embedding": matrix(features.embedding)}
    if features.logits is not None:
        columns["logits"] = matrix(features.logits)
    if features.labels is not None:
        columns["labels"] = pa.array(features.labels.numpy())
    return pa.table(columns)
