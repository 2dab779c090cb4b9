"""Images from files, Parquet tables, tar shards, named sets and memory, in one fixed order, with a manifest.

torch, torchvision and pyarrow are imported when they are first needed, so that naming this room costs nothing.
"""

from mood.data.augment import Augment
from mood.data.brought import is_features, open_data
from mood.data.cards import Card, card, cards, find
from mood.data.drawing import TrainingImages
from mood.data.epoch import TrainingBatch, augmented, training_batches
from mood.data.holdout import held_out
from mood.data.joining import join
from mood.data.loader import batches
from mood.data.manifest import Manifest
from mood.data.opening import check_data, open_source
from mood.data.source import Source
from mood.data.streaming import Stream, scan, stream_shards

__all__ = [
    "Augment",
    "Card",
    "Manifest",
    "Source",
    "Stream",
    "TrainingBatch",
    "TrainingImages",
    "augmented",
    "batches",
    "card",
    "cards",
    "check_data",
    "find",
    "held_out",
    "is_features",
    "join",
    "open_data",
    "open_source",
    "scan",
    "stream_shards",
    "training_batches",
]
