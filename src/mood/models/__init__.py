"""Networks: timm's by name, a checkpoint's, the embedded one, or the user's own; and what one pass gives."""

from mood.models.attention import without_fused_attention
from mood.models.controls import ChannelStatistics, six_numbers
from mood.models.embedding import Embedder, Seen, resolve_device, resolve_precision
from mood.models.model import Architecture, Beside, Model, Stage, image_keys, weights_digest
from mood.models.opening import (
    EMBEDDED,
    check_name,
    input_transform,
    load_model,
    open_model,
    own_model,
    randomised,
    resized,
    save_model,
)
from mood.models.pretexts import PRETEXTS, BeitPretext, MaskedAutoencoder, Pretext, SimMim, Views, make_pretext
from mood.models.weights import ImportReport, load_weights, read_state

__all__ = [
    "EMBEDDED",
    "PRETEXTS",
    "Architecture",
    "BeitPretext",
    "Beside",
    "ChannelStatistics",
    "Embedder",
    "ImportReport",
    "MaskedAutoencoder",
    "Model",
    "Pretext",
    "Seen",
    "SimMim",
    "Stage",
    "Views",
    "check_name",
    "image_keys",
    "input_transform",
    "load_model",
    "load_weights",
    "make_pretext",
    "open_model",
    "own_model",
    "randomised",
    "read_state",
    "resized",
    "resolve_device",
    "resolve_precision",
    "save_model",
    "six_numbers",
    "weights_digest",
    "without_fused_attention",
]
