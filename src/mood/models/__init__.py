"""Networks: timm's by name, a checkpoint's, the embedded one, or the user's own; and what one pass gives."""

from mood.models.attention import without_fused_attention
from mood.models.controls import ChannelStatistics, six_numbers
from mood.models.embedding import Embedder, Seen, resolve_device, resolve_precision
from mood.models.model import Architecture, Beside, Model, Stage, image_keys, weights_digest
from mood.models.opening import (
    EMBEDDED,
    check_name,
    check_spelling,
    input_transform,
    load_model,
    open_model,
    own_model,
    randomised,
    resized,
    save_model,
)
from mood.models.pretexts import PRETEXTS, BeitPretext, MaskedAutoencoder, Pretext, SimMim, Views, make_pretext
from mood.models.tokenizer import (
    DiscreteVae,
    DvaeTokenizer,
    Shown,
    VaeShape,
    codebook_usage,
    kl_to_uniform,
    map_pixels,
    open_tokenizer,
    save_vae,
    untrained_tokenizer,
)
from mood.models.weights import ImportReport, load_weights, read_state

__all__ = [
    "EMBEDDED",
    "PRETEXTS",
    "Architecture",
    "BeitPretext",
    "Beside",
    "ChannelStatistics",
    "DiscreteVae",
    "DvaeTokenizer",
    "Embedder",
    "ImportReport",
    "MaskedAutoencoder",
    "Model",
    "Pretext",
    "Seen",
    "Shown",
    "SimMim",
    "Stage",
    "VaeShape",
    "Views",
    "check_name",
    "check_spelling",
    "codebook_usage",
    "image_keys",
    "input_transform",
    "kl_to_uniform",
    "load_model",
    "load_weights",
    "make_pretext",
    "map_pixels",
    "open_model",
    "open_tokenizer",
    "own_model",
    "randomised",
    "read_state",
    "resized",
    "resolve_device",
    "resolve_precision",
    "save_model",
    "save_vae",
    "six_numbers",
    "untrained_tokenizer",
    "weights_digest",
    "without_fused_attention",
]
