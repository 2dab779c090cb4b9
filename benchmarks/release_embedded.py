"""Make the network that comes with mood from one that `mood finetune` wrote, and write its card from what is measured.

    python benchmarks/release_embedded.py embedded --data-root DIR --effort "…" --pool model --layer 5+last

Which pooling and layer it gives is what `benchmarks/choose_embedding.py` chose. Weights are stored in half precision;
the accuracy on the card is that of the rounded weights on `cifar100:test`.
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from mood.data import open_source
from mood.models import load_model, resolve_device, resolve_precision, save_model
from mood.recipes.accuracy import accuracy

EMBEDDED = Path(__file__).parents[1] / "src" / "mood" / "models" / "embedded"

CARD = """# The embedded network

`{name}`
({options}),
{parameters:.2f} M parameters, {size:.1f} MB in half precision, input 32 × 32 pixels.

It is here so that mood works without a network connection and so that tests and demonstrations are real. For pictures
that need more than 32 pixels take a larger one: see "Choosing a network" in the guide.

| stage | images | recipe |
|---|---|---|
{stages}

A tenth of each set, cut by the hash of its bytes with seed 0, was left out of every stage. `seen.safetensors` holds the
keys of the images that were seen.

* Accuracy on `cifar100:test` (CIFAR-100 as JPEG, quality 95): {accuracy:.1%}.
* Effort: {effort}
* Embedding: pool `{pool}`, layer `{layer}`, chosen on known images alone by `benchmarks/choose_embedding.py`.
* What it is not good at: anything that 32 pixels do not show. `docs/results` has its figures beside those of six
  numbers per image and of the same network with random weights, where these are ahead as well.
* Data: Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009. Weights: Apache-2.0, as the rest.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path, help="folder that mood finetune wrote")
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--effort", required=True, help="one sentence: how long, on what")
    parser.add_argument("--pool", default="model", help="what its embedding is pooled by unless told")
    parser.add_argument("--layer", default="last", help="the layers of its embedding unless told, such as 5+last")
    parser.add_argument("--output", type=Path, default=EMBEDDED, help="folder in place of the package's own")
    given = parser.parse_args()
    model = load_model(given.network)
    shutil.rmtree(given.output, ignore_errors=True)
    released = replace(model, name="embedded", source=given.effort, pool=given.pool, layer=given.layer)
    save_model(given.output, released, dtype=torch.float16)
    rounded = load_model(given.output)
    device = resolve_device("auto")
    test = open_source("cifar100:test", roots=[given.data_root])
    share = accuracy(rounded.module.to(device), rounded.transform, test, resolve_precision("auto", device), workers=1)
    assert rounded.architecture is not None
    options = ", ".join(f"{key}={value}" for key, value in rounded.architecture.options.items())
    stages = [
        f"| {stage.stage} | {stage.images:,} of {stage.data}{' with labels' if stage.labelled else ''} | "
        f"{', '.join(f'{key} {value}' for key, value in stage.settings.items())} |"
        for stage in rounded.history or ()
    ]
    card = CARD.format(
        name=rounded.architecture.name,
        options=options,
        parameters=sum(value.numel() for value in rounded.module.parameters()) / 1e6,
        size=(given.output / "model.safetensors").stat().st_size / 1e6,
        stages="\n".join(stages),
        accuracy=share,
        effort=given.effort,
        pool=rounded.pool,
        layer=rounded.layer,
    )
    (given.output / "README.md").write_text(card, encoding="utf-8")
    print(card)


if __name__ == "__main__":
    main()
