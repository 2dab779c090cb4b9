"""Which pretext makes the better features, at CIFAR scale and for like budgets? One arm a pretext, and one without.

    python benchmarks/pretexts.py --data-root DIR --work RUNS                 # all arms, then the page
    python benchmarks/pretexts.py --data-root DIR --work RUNS --arm mae       # one arm: they can run apart
    python benchmarks/pretexts.py --data-root DIR --work RUNS --speed         # images a second, to choose the epochs
    python benchmarks/pretexts.py --data-root DIR --work RUNS --figures docs/results/pretexts   # keep them elsewhere

Every arm is the same small vision transformer, pre-trained on the training images of CIFAR-10 for about the same time
(the epochs in `ARMS` follow from measured speeds; the processor time that each took stands in its figures) and then
fine-tuned on their labels alike. Measured are the accuracy, the accuracy of a linear probe before fine-tuning, and the
AUROC of three scores against every set that is there, beside a Mahalanobis distance on six numbers per image. Nothing
is chosen by any of these figures. Killed, it goes on; arms whose figures are there already are not trained again, so
that they can be measured one by one, on another day or another machine: those of `docs/results/pretexts` make the
tables of `docs/results/2026-11-25-pretexts.md`.
"""

import argparse
import json
import platform
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mood
from mood.core.features import Features
from mood.data import Source, batches, held_out, open_source
from mood.evaluation import evaluate
from mood.models import Embedder, Model, load_model, randomised, resolve_device, resolve_precision, six_numbers
from mood.recipes.accuracy import accuracy
from mood.recipes.extract import extract_features
from mood.recipes.finetune import FinetuneConfig, finetune
from mood.recipes.pretrain import PretrainConfig, pretrain

KNOWN = "cifar10"
UNKNOWN = (
    "cifar100:test",
    "tinyimagenet-val",
    "imagenet1k-sample",
    "caltech101-subset",
    "scenes15-subset",
    "flowers5-subset",
    "clothing-subset",
    "dtd-subset",
    "chars74k-subset",
    "bccd",
    "mnist-test",
    "kmnist-subset",
    "emnist-letters-subset",
    "omniglot-small",
)
SCORES = ("mood", "mahalanobis++", "msp")
NETWORK = ("embed_dim=128", "depth=6", "num_heads=4")


@dataclass(frozen=True, slots=True)
class Arm:
    """How one network is pre-trained.

    Attributes:
        epochs: what about 20 minutes on two idle cores allow.
        settings: of `mood pretrain`.
    """

    epochs: int
    settings: Mapping[str, Any] = field(default_factory=dict)


# Decays and augmentations are those of the published recipes. Learning rates, for a batch of 256, are 4 to 16 times
# theirs: they are those of small transformers and few epochs, and were not tuned.
ARMS = {
    "scratch": Arm(1, {"pretext": "scratch"}),
    "classification": Arm(10, {"pretext": "classification", "base_lr": 1e-3}),
    "supcon": Arm(5, {"pretext": "supcon", "base_lr": 1e-3}),
    "moco_v3": Arm(5, {"pretext": "moco_v3", "base_lr": 6e-4, "weight_decay": 0.1}),
    "mae": Arm(20, {"pretext": "mae", "base_lr": 8e-4}),
    "simmim": Arm(10, {"pretext": "simmim", "base_lr": 8e-4, "clip": 5.0}),
    "beit": Arm(10, {"pretext": "beit", "base_lr": 8e-4, "clip": 3.0}),
}
FINETUNE_EPOCHS = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line said."""

    data_root: str
    work: Path
    figures: Path
    tokenizer: Path
    device: str
    workers: int
    limit: int | None
    epochs: int | None
    seed: int

    def opened(self, name: str) -> Source:
        """A set by its name."""
        return open_source(name, roots=[self.data_root], limit=self.limit)


def common(plan: Plan) -> dict[str, Any]:
    """What both stages are told."""
    return {
        "seed": plan.seed,
        "device": plan.device,
        "workers": plan.workers,
        "limit": plan.limit,
        "data_root": (plan.data_root,),
        "batch_size": 256 if plan.limit is None else 32,
    }


def pretraining(plan: Plan, name: str, *, epochs: int, output: Path) -> PretrainConfig:
    """The first stage of an arm."""
    return PretrainConfig(
        data=(f"{KNOWN}:train",),
        output=output,
        model="mood_vit_patch4_32",
        model_options=NETWORK,
        epochs=epochs,
        warmup_epochs=min(2.0, epochs / 10),
        **ARMS[name].settings,
        **({"tokenizer": plan.tokenizer} if name == "beit" else {}),
        **common(plan),
    )


def trained(plan: Plan, name: str) -> tuple[Model, Model, float]:
    """The network of one arm before and after fine-tuning, and the minutes of processor time before it.

    The minutes are kept beside the network, where a run that was stopped (by Ctrl-C) finds them again and adds its own.
    """
    epochs = plan.epochs or ARMS[name].epochs
    output = plan.work / f"{name}-{plan.seed}"
    start, kept = processor_minutes(), plan.work / f"{name}-{plan.seed}-minutes.json"
    minutes = float(json.loads(kept.read_text())) if kept.exists() else 0.0
    finished = output.exists()
    try:
        before = pretrain(pretraining(plan, name, epochs=epochs, output=output))
    finally:
        if not finished:
            minutes += processor_minutes() - start
            kept.write_text(json.dumps(minutes))
    epochs = plan.epochs or FINETUNE_EPOCHS
    after = finetune(
        FinetuneConfig(
            data=f"{KNOWN}:train",
            output=plan.work / f"{name}-{plan.seed}-finetuned",
            model=str(before.output),
            epochs=epochs,
            warmup_epochs=min(1.0, epochs / 10),
            lr=1e-3,
            layer_decay=0.85,
            drop_path=0.05,
            ema=0.99,
            **common(plan),
        )
    )
    return load_model(before.output), load_model(after.output), minutes


def processor_minutes() -> float:
    """What this process and its finished workers have used; other work on the machine does not count."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(item.ru_utime + item.ru_stime for item in used) / 60


def features(plan: Plan, model: Model, source: Source, *, fp32: bool = False) -> Features:
    """Features of a source from the cache, or made now."""
    embedder = Embedder(model, device="cpu" if fp32 else plan.device, precision="fp32" if fp32 else "auto")
    return Features.concat(list(extract_features(source, embedder, batch_size=256, workers=plan.workers).store))


def probe(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Accuracy of a logistic regression on standardised features."""
    chosen = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    return float(chosen.fit(train, train_labels).score(test, test_labels))


def probe_of(plan: Plan, model: Model, train: Source, test: Source) -> float:
    """Accuracy of a probe on a network's features."""
    known, new = features(plan, model, train), features(plan, model, test)
    assert known.labels is not None
    assert new.labels is not None
    return probe(known.embedding.numpy(), known.labels.numpy(), new.embedding.numpy(), new.labels.numpy())


def probe_of_pixels(model: Model, train: Source, test: Source, width: int) -> float:
    """Accuracy of a probe on as many principal components of the pixels as the network has features."""

    def pixels(source: Source) -> tuple[np.ndarray, np.ndarray]:
        parts = list(batches(source, model.transform, batch_size=512))
        rows = np.concatenate([part.pixels.reshape(len(part), -1) for part in parts]).astype(np.float32)
        return rows / 255, np.concatenate([part.labels for part in parts if part.labels is not None])

    (known, labels), (new, new_labels) = pixels(train), pixels(test)
    components = PCA(min(width, len(known)), random_state=0).fit(known)
    return probe(components.transform(known), labels, components.transform(new), new_labels)


def measured(score: str, fitted_on: Features, known: Features, unknown: Mapping[str, Features], head: Any) -> Any:
    """AUROC with its interval against each set."""
    fitted = mood.scores.fit(score, fitted_on, head=head)
    on_known = fitted(known).numpy()
    found = {name: evaluate(on_known, fitted(item).numpy()).auroc for name, item in unknown.items()}
    return {name: [item.value, item.low, item.high] for name, item in found.items()}


def run_arm(plan: Plan, name: str) -> dict[str, Any]:
    """All figures of one arm; kept in a file, and read from there the next time."""
    path = plan.figures / f"{name}-{plan.seed}.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    before, after, minutes = trained(plan, name)
    train, test = plan.opened(f"{KNOWN}:train"), plan.opened(f"{KNOWN}:test")
    train = train.select(~held_out(train.manifest.hashes, seed=plan.seed))
    device = resolve_device(plan.device)
    precision = resolve_precision("auto", device)
    unknown = {item: plan.opened(item) for item in UNKNOWN}
    figures: dict[str, Any] = {
        "epochs": plan.epochs or ARMS[name].epochs,
        "processor_minutes": minutes,
        "probe": probe_of(plan, before, train, test),
        "accuracy": accuracy(after.module.to(device), after.transform, test, precision, plan.workers),
        "auroc": {},
    }
    for stage, model, scores in (("pre-trained", before, ("mood",)), ("fine-tuned", after, SCORES)):
        fitted_on, known = features(plan, model, train), features(plan, model, test)
        others = {item: features(plan, model, source) for item, source in unknown.items()}
        for score in scores:
            head = Embedder(model, device="cpu").head
            figures["auroc"][f"{score}, {stage}"] = measured(score, fitted_on, known, others, head)
    path.write_text(json.dumps(figures, indent=1))
    return figures


def controls(plan: Plan) -> dict[str, Any]:
    """Six numbers per image, probes on random weights and on principal components of pixels."""
    path = plan.figures / f"controls-{plan.seed}.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    network, _, _ = trained(plan, "scratch")
    train, test = plan.opened(f"{KNOWN}:train"), plan.opened(f"{KNOWN}:test")
    train = train.select(~held_out(train.manifest.hashes, seed=plan.seed))
    six = six_numbers(network.transform)
    fitted_on = features(plan, six, train, fp32=True)
    one = Features(fitted_on.embedding, ids=fitted_on.ids, labels=torch.zeros(len(fitted_on), dtype=torch.int64))
    others = {item: features(plan, six, plan.opened(item), fp32=True) for item in UNKNOWN}
    figures = {
        "random weights": probe_of(plan, randomised(network, plan.seed + 1), train, test),
        "pixels": probe_of_pixels(network, train, test, width=128),
        "six numbers": measured("mahalanobis", one, features(plan, six, test, fp32=True), others, None),
    }
    path.write_text(json.dumps(figures, indent=1))
    return figures


def speeds(plan: Plan) -> None:
    """Prints how many images a second each arm learns from, in one epoch of its own."""
    for name in ARMS:
        if name == "scratch":
            continue
        config = pretraining(plan, name, epochs=1, output=plan.work / f"speed-{name}-{time.time_ns()}")
        start = time.perf_counter()
        result = pretrain(config)
        print(f"{name}: {result.images / (time.perf_counter() - start):.0f} images/s", flush=True)


def page(plan: Plan, arms: Mapping[str, Mapping[str, Any]], beside: Mapping[str, Any]) -> str:
    """The tables as Markdown."""
    lines = [
        "| arm | epochs of pre-training | its processor minutes | linear probe | accuracy after fine-tuning |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, figures in arms.items():
        budget = "– | –" if name == "scratch" else f"{figures['epochs']} | {figures['processor_minutes']:.0f}"
        lines.append(f"| {name} | {budget} | {figures['probe']:.1%} | {figures['accuracy']:.1%} |")
    lines += [
        f"| *random weights, another draw* | – | – | {beside['random weights']:.1%} | – |",
        f"| *128 principal components of the pixels* | – | – | {beside['pixels']:.1%} | – |",
    ]
    for key in ("mood, pre-trained", *(f"{score}, fine-tuned" for score in SCORES)):
        lines += ["", f"AUROC of `{key.split(',')[0]}`,{key.split(',')[1]} features (ID `{KNOWN}:test`):", ""]
        lines.append(f"| set | {' | '.join(arms)} | six numbers |")
        lines.append(f"|---|{'---:|' * (len(arms) + 1)}")
        for item in UNKNOWN:
            row = [arms[name]["auroc"][key][item][0] for name in arms] + [beside["six numbers"][item][0]]
            best = max(row)
            shown = [f"**{100 * value:.1f}**" if value == best else f"{100 * value:.1f}" for value in row]
            lines.append(f"| {item} | {' | '.join(shown)} |")
        means = [np.mean([arms[name]["auroc"][key][item][0] for item in UNKNOWN]) for name in arms]
        means.append(np.mean([beside["six numbers"][item][0] for item in UNKNOWN]))
        lines.append(f"| *mean* | {' | '.join(f'{100 * value:.1f}' for value in means)} |")
    halves = [
        max(value - low, high - value)
        for figures in (*(arm["auroc"] for arm in arms.values()), {"six numbers": beside["six numbers"]})
        for by_set in figures.values()
        for value, low, high in by_set.values()
    ]
    lines += [
        "",
        f"95 % intervals over the draw of the test images reach at most {100 * max(halves):.1f} points from a "
        f"figure, {100 * float(np.median(halves)):.1f} from half of them; the files of the arms have each.",
    ]
    where = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, seed {plan.seed}"
    return "\n".join([*lines, "", where, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--figures", type=Path, help="folder of the figures of each arm, in place of WORK")
    parser.add_argument("--arm", action="append", choices=list(ARMS), help="only this one (may be repeated)")
    parser.add_argument("--tokenizer", type=Path, help="for beit, in place of WORK/tokenizer")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--limit", type=int, help="images of each set: a try")
    parser.add_argument("--epochs", type=int, help="of every stage: a try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speed", action="store_true", help="print images a second and stop")
    given = parser.parse_args()
    plan = Plan(
        data_root=given.data_root,
        work=given.work,
        figures=given.figures or given.work,
        tokenizer=given.tokenizer or given.work / "tokenizer",
        device=given.device,
        workers=given.workers,
        limit=given.limit,
        epochs=given.epochs,
        seed=given.seed,
    )
    plan.work.mkdir(parents=True, exist_ok=True)
    plan.figures.mkdir(parents=True, exist_ok=True)
    if given.speed:
        speeds(plan)
        return
    done = {name: run_arm(plan, name) for name in given.arm or ARMS}
    text = page(plan, done, controls(plan))
    (plan.work / "tables.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
