"""What a pretext is told: which one it is, and the settings that are its own."""

from pathlib import Path
from typing import Any, Literal

from mood.core.config import config, fields
from mood.core.ranges import Count, Level, Positive, Share


@config
class PretextConfig:
    """What belongs to a pretext and not to the run; None leaves it to the pretext's own default."""

    pretext: Literal["beit", "mae", "simmim", "moco_v3", "supcon", "classification", "scratch"] = "mae"
    """what the network learns: beit = the tokens of masked patches; mae, simmim = their pixels; moco_v3 = that two
    views are one image; supcon = that images of a class are alike; classification = the classes; scratch = nothing, it
    stays as it was initialised"""
    tokenizer: Path | None = None
    """beit: folder that `mood tokenizer` wrote, or file with the encoder of DALL-E; one token for each patch"""
    mask_ratio: Level | None = None
    """share of the patches that is masked: beit 75/196 at most, mae .75, simmim .6"""
    min_block: Count | None = None
    """beit: patches of the smallest masked block, 16 of 196 in proportion unless said"""
    exact_mask: bool | None = None
    """beit: mask exactly that share, by single patches where blocks leave something to mask"""
    mask_unit: Count | None = None
    """simmim: side in pixels of the squares that are masked as a whole; at most 32, and 6 to a side, unless said"""
    decoder_width: Count | None = None
    """mae: width of the decoder, 128 unless said; 512 in the paper's"""
    decoder_depth: Count | None = None
    """mae: blocks of the decoder, 1 unless said; 8 in the paper's, 1 or 2 on small images"""
    decoder_heads: Count | None = None
    """mae: attention heads of the decoder, 4 unless said"""
    normalise_target: bool | None = None
    """mae: normalise the pixels of each patch before they are predicted, as it does unless told not to"""
    temperature: Positive | None = None
    """moco_v3, supcon: of the softmax over the batch, .2 and .1 unless said"""
    momentum: Share | None = None
    """moco_v3: share of itself that the slow copy keeps at first, .99 unless said"""
    projection_width: Count | None = None
    """moco_v3, supcon: width in which views are compared, 256 and 128 unless said"""
    hidden_width: Count | None = None
    """moco_v3: width of the projection's inner layers, 1024 unless said, 4096 in the paper's"""
    label_smoothing: Share | None = None
    """classification: share of the target spread over all classes, .1 unless said"""


def pretext_settings(config: PretextConfig) -> dict[str, Any]:
    """What the config says to its pretext; None where it says nothing."""
    return {name: getattr(config, name) for name in fields(PretextConfig) if name != "pretext"}
