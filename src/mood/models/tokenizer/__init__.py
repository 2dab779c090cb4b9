"""Tokenizers: images as words of a visual vocabulary, by a discrete VAE of one's own or by the encoder of DALL-E."""

from mood.models.tokenizer.codes import DvaeTokenizer
from mood.models.tokenizer.likelihood import map_pixels
from mood.models.tokenizer.opening import load_vae, open_tokenizer, save_vae, untrained_tokenizer
from mood.models.tokenizer.relaxation import codebook_usage, kl_to_uniform
from mood.models.tokenizer.vae import DiscreteVae, Shown, VaeShape

__all__ = [
    "DiscreteVae",
    "DvaeTokenizer",
    "Shown",
    "VaeShape",
    "codebook_usage",
    "kl_to_uniform",
    "load_vae",
    "map_pixels",
    "open_tokenizer",
    "save_vae",
    "untrained_tokenizer",
]
