"""`mood finetune`: a pre-trained network learns the classes of its own world."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mood.core.config import Argument, NotInFingerprint, config, to_dict
from mood.core.ranges import Count, NotNegative, Part, Positive, Probability, Share
from mood.recipes.settings import NetworkConfig, NetworkStageConfig, SelectionConfig

if TYPE_CHECKING:
    from mood.data import Augment, Source, Stream
    from mood.models import Architecture
    from mood.recipes.inputs import TrainingSet
    from mood.training import Optimisation, Processes


@config
class FinetuneConfig(NetworkConfig, SelectionConfig, NetworkStageConfig):
    """Fine-tune a network on labelled images."""

    data: Annotated[str, Argument("DATA")]
    """labelled images: a folder with a sub-folder per class, a Parquet file or a named set"""
    output: Annotated[Path, NotInFingerprint]
    """folder for the network"""
    model: str = "embedded"
    """the network to start from: a folder that mood wrote, 'embedded', or a timm name"""
    random_weights: bool = False
    """start from random weights instead"""
    eval: str | None = None
    """labelled images on which the accuracy is measured after every epoch"""
    head_classes: Count | None = None
    """outputs of the new head, at least as many as there are classes; one-class fine-tuning keeps the head of the whole
    set (30 for ImageNet-30), and label smoothing gives it something to learn"""
    freeze: Annotated[int, Field(ge=-1)] = 0
    """this many of the lowest blocks keep their weights, and with them what lies below; -1 trains the head alone"""
    l2_sp: NotNegative = 0.0
    """strength of the pull of each weight of the body towards where it started (L2-SP); 0 is off"""
    lr: Positive = 1e-3
    """learning rate of the head and the last block"""
    min_lr: NotNegative = 1e-6
    """learning rate at the end"""
    layer_decay: Part = 0.75
    """learning-rate factor from each block to the one below"""
    drop_path: Share = 0.1
    """stochastic depth of the last block"""
    label_smoothing: Share = 0.1
    """share of the target spread over all classes (equation 1 of the paper)"""
    mixup: NotNegative = 0.0
    """alpha of mixup; 0 is off"""
    cutmix: NotNegative = 0.0
    """alpha of cutmix; 0 is off"""
    rand_augment: str = ""
    """timm's RandAugment string such as rand-m9-mstd0.5-inc1; empty is off"""
    erasing: Probability = 0.0
    """probability of random erasing"""
    ema: Share = 0.999
    """decay of the averaged weights that are kept; 0 keeps the last ones"""
    init_scale: NotNegative = 0.001
    """factor on the new head's initial weights"""
    epochs: Count = 30
    batch_size: Count = 128
    clip: NotNegative = 1.0
    crop_scale: Part = 0.6


@dataclass(frozen=True)
class FinetuneResult:
    """What `mood finetune` leaves: the folder and its last metrics; what became of a foreign file, where it began."""

    output: Path
    images: int
    classes: int
    metrics: Mapping[str, float]
    reused: bool
    rejected: int = 0
    weights: str = ""

    def summary(self) -> str:
        """One line for a person."""
        from mood.recipes.rejected import told

        if self.reused:
            return f"{self.output} was already finished with this configuration; nothing to do"
        accuracy = self.metrics.get("accuracy")
        shown = "" if accuracy is None else f", accuracy {accuracy:.1%}"
        return (
            f"fine-tuned on {self.images - self.rejected} images of {self.classes} classes, "
            f"loss {self.metrics['loss']:.4f}{shown}; the network is in {self.output}{told(self.rejected)}"
            + (f"\nstarted from {self.weights}" if self.weights else "")
        )


def architecture_of(config: FinetuneConfig, coming: "Architecture | None" = None) -> "Architecture":
    """What is fine-tuned, but for its head: what comes from a stage before it, or what the config names."""
    from mood.models import Architecture
    from mood.recipes.inputs import model_options

    start = Architecture(config.model) if coming is None else coming
    return Architecture(start.name, {**start.options, **model_options(config.model_options)})


def check(config: FinetuneConfig, *, coming: "Architecture | None" = None) -> None:
    """Refuse what cannot be fine-tuned, before an image or a weight is looked at.

    Args:
        config: of the stage.
        coming: the network that a stage before it will write.

    Raises:
        InputError: a setting that is out of range or for other processes, or a file that is not there.
        ModelError: a network that nobody knows, that cannot be built, or that does not do what is asked of it.
    """
    import torch

    from mood.core.errors import InputError
    from mood.models import check_name
    from mood.recipes.inputs import check_given, check_stream, check_training
    from mood.recipes.tasks import freeze
    from mood.training import check_divisible

    if config.l2_sp and config.strategy == "fsdp":
        raise InputError("l2_sp compares whole weights, and strategy fsdp spreads them: set strategy to ddp")
    share = check_training(
        config.strategy, batch_size=config.batch_size, accumulate=config.accumulate, compile=config.compile
    )
    at_once = config.batch_size // share.of
    if (config.mixup or config.cutmix) and at_once % 2:
        raise InputError(
            f"batch_size is {config.batch_size}, of which {at_once} images are looked at at once, and mixup and cutmix "
            f"take them in pairs: set it to {config.batch_size + share.of}"
        )
    if config.stream:
        check_stream((config.data,), config.limit)
        if config.coarse or config.classes:
            raise InputError("coarse and classes pick from a list, and a stream has none: leave them or stream out")
    _optimisation(config, config.device, config.precision)
    _augment(config)
    check_given(checkpoint=config.checkpoint)
    if coming is None:
        check_name(config.model)
    architecture = architecture_of(config, coming)
    architecture.check()
    if architecture.known:
        with torch.device("meta"):
            module, own = _new_network(config, architecture, outputs=2)
        freeze(module, config.freeze, own)
        check_divisible(module, config.accumulate)


def chosen_images(config: FinetuneConfig, source: "Source | Stream") -> "tuple[TrainingSet, tuple[str, ...], int]":
    """The images that are learned from, the names of their classes, and the outputs of the head.

    Raises:
        InputError: no labels, a head with fewer outputs than there are classes, or a batch that the images do not fill.
    """
    from mood.core.errors import InputError
    from mood.recipes.inputs import check_batch_size, training_set

    chosen = training_set(
        [source],
        stage="finetune",
        labelled=True,
        seed=config.seed,
        fraction=config.held_out,
        settings={"epochs": config.epochs, "lr": config.lr, "layer_decay": config.layer_decay},
    )
    names = chosen.class_names
    classes = len(names)
    outputs = classes if config.head_classes is None else config.head_classes
    if outputs < max(classes, 2):
        raise InputError(
            f"{source.name} has {classes} class{'es' if classes > 1 else f' ({names[0]})'}, and the head would "
            f"have {outputs} outputs: set head_classes to at least {max(classes, 2)}"
            + ("; the paper keeps the head of the whole set for one class" if classes == 1 else "")
        )
    check_batch_size(len(chosen.source), config.batch_size)
    return chosen, names, outputs


def _new_network(config: FinetuneConfig, architecture: "Architecture", outputs: int) -> tuple[Any, set[str]]:
    """A network with new weights, as it is trained, and the names of its head.

    Raises:
        ModelError: it has two heads, or lacks something that is asked of it.
    """
    import torch

    from mood.core.errors import ModelError
    from mood.recipes.tasks import compute_again

    rate: dict[str, Any] = {"drop_path_rate": config.drop_path} if config.drop_path else {}
    module: Any = architecture.build(num_classes=outputs, **rate)
    head = module.get_classifier()
    if not isinstance(head, torch.nn.Module):
        raise ModelError(f"{architecture.name} has more than one head, and fine-tuning knows networks with one")
    if config.checkpoint_activations:
        compute_again(module, architecture.name)
    return module, {name for name, child in module.named_modules() if child is head}


def _optimisation(config: FinetuneConfig, device: str, precision: str) -> "Optimisation":
    from mood.training import Optimisation

    return Optimisation(
        epochs=config.epochs,
        lr=config.lr,
        min_lr=config.min_lr,
        warmup_epochs=config.epochs / 20 if config.warmup_epochs is None else config.warmup_epochs,
        weight_decay=config.weight_decay,
        layer_decay=config.layer_decay,
        clip=config.clip,
        ema=config.ema,
        seed=config.seed,
        device=device,
        precision=precision,
        accumulate=config.accumulate,
        compile=config.compile,
        save_seconds=config.save_seconds,
    )


def _augment(config: FinetuneConfig) -> "Augment":
    from mood.data import Augment

    return Augment(scale=(config.crop_scale, 1.0), rand_augment=config.rand_augment or None, erase=config.erasing)


def finetune(config: FinetuneConfig, *, source: "Source | None" = None) -> FinetuneResult:
    """Fine-tune a network and write it as a model folder; start again to resume.

    Where torchrun started several processes, each calls this, and trains on its share of every batch.

    Args:
        config: see `FinetuneConfig`.
        source: opened images in place of `config.data`.

    Raises:
        MoodError: bad data, a network or weights that do not fit, an output that is taken.
    """
    from mood.models import resolve_device
    from mood.training import processes

    check(config)
    return _finetune(config, source, processes(config.strategy, str(resolve_device(config.device))))


def _finetune(config: FinetuneConfig, source: "Source | None", together: "Processes") -> FinetuneResult:
    from dataclasses import replace

    import torch

    from mood.core import artifact
    from mood.core.errors import InputError
    from mood.data import TrainingImages, open_source
    from mood.models import (
        Architecture,
        Model,
        open_model,
        resolve_precision,
        save_model,
        without_fused_attention,
    )
    from mood.recipes.inputs import (
        fingerprint_of,
        images_of_last_stage,
        keep_records,
        last_metrics,
        model_options,
        open_stream,
        union,
    )
    from mood.recipes.rejected import rejections
    from mood.recipes.tasks import ClassifierTask, freeze
    from mood.recipes.together import open_output_of_all
    from mood.training import seed_everything, train

    device = together.device
    images: Source | Stream
    if source is not None:
        images = source
    elif config.stream:
        images = open_stream(config.data, together, seed=config.seed, fraction=config.held_out)
    else:
        images = open_source(
            config.data,
            roots=config.data_root,
            coarse=config.coarse,
            classes=config.classes or None,
            limit=config.limit,
        )
    chosen, names, outputs = chosen_images(config, images)
    test = (
        None
        if config.eval is None
        else open_source(config.eval, roots=config.data_root, coarse=config.coarse, classes=names)
    )
    if test is not None and test.manifest.class_names != names:
        raise InputError(f"the classes of {test.name} come in another order than those of {images.name}")
    start: Model = open_model(
        config.model,
        checkpoint=config.checkpoint,
        options=model_options(config.model_options),
        random_weights=config.random_weights,
        seed=config.seed,
        transform=model_options(config.transform_options),
    )
    settings = to_dict(config) | {"images": fingerprint_of(images), "weights": start.fingerprint()}
    with open_output_of_all(together, config.output, settings, overwrite=config.overwrite) as output:
        if output.finished:
            classes = len(artifact.describe(config.output)["meta"]["history"][-1]["class_names"])
            seen = images_of_last_stage(config.output)
            rejected = len(rejections(config.output))
            return FinetuneResult(config.output, seen, classes, last_metrics(config.output), True, rejected)
        classes = len(names)
        # Whatever opens by a name is of timm's making.
        assert start.architecture is not None
        options = {**start.architecture.options, "num_classes": outputs}
        architecture = Architecture(start.architecture.name, options)
        seed_everything(config.seed)
        module, own = _new_network(config, architecture, outputs)
        body = {
            name: value
            for name, value in start.module.state_dict().items()
            if name.rpartition(".")[0] not in own and name in module.state_dict()
        }
        module.load_state_dict(body, strict=False)
        with torch.no_grad():
            for parameter in module.get_classifier().parameters():
                parameter.mul_(config.init_scale)
        freeze(module, config.freeze, own)
        training = TrainingImages(
            chosen.source,
            (_augment(config),),
            size=start.transform.size,
            mean=start.transform.mean,
            std=start.transform.std,
            seed=config.seed,
        )
        anchors = {
            name: body[name].to(together.device, copy=True) for name, _ in module.named_parameters() if name in body
        }
        if device.type == "cpu":
            without_fused_attention(module)
        precision = resolve_precision(config.precision, device)
        trained = train(
            ClassifierTask(
                module, training, config, output.scratch, outputs, start.transform, test, precision, anchors, together
            ),
            _optimisation(config, str(device), precision),
            output.scratch,
            description="finetune",
            together=together,
        )
        finished = replace(
            start,
            name=config.output.name,
            module=trained,
            architecture=architecture,
            # Outputs that no class has been given have no name, and with them the others have none.
            class_names=names if outputs == classes else (),
            history=None if start.history is None else (*start.history, *chosen.stages),
            seen=None if start.seen is None else union(start.seen, chosen.keys),
            source=f"mood finetune, {config.epochs} epochs, from {start.source or start.name}",
            # A choice belongs to the weights that it was measured on; these learned what their head sees.
            pool="model",
            layer="last",
            # A decoder fits the encoder that it was trained with, and this is another one now.
            beside=None,
        )
        metrics = {}
        if together.first:
            save_model(output.work, finished)
            metrics = keep_records(output.scratch, output.work)
            output.commit()
        metrics = together.agree(metrics)
    rejected = len(rejections(config.output))
    weights = "" if config.checkpoint is None else start.source
    return FinetuneResult(config.output, len(training), classes, metrics, False, rejected, weights)
