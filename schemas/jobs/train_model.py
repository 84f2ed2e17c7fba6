"""Train a model on a set of sequences, pairs or images with their labels or targets.

A run that is stopped goes on at its last checkpoint to the losses it would have had. Its result is a model folder.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from schemas._base import Name, Option, Spec

PositiveInt = Annotated[int, Field(ge=1)]
WholeInt = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class SplitSetSpec(Spec):
    """A sequence set and its split file."""

    path: Text
    """set (SET) of sequences or images: the output of a finished ingest run; of sequences also Parquet of its schema"""
    splits: Text
    """split file: Parquet of schema splits, which says for every record train, validation or test"""
    empty_classes: Literal["refuse", "allow"] = "refuse"
    """whether the validation or test rows may lack a class; figures of that class are then left out"""


class DataSpec(SplitSetSpec):
    """What to train on."""

    fold: WholeInt | None = None
    """hold this fold of the split file out for validation and train on the others"""
    inner_fold: WholeInt | None = None
    """of nested folds: test on the fold, validate on this inner fold of the others, and train on the rest"""

    @model_validator(mode="after")
    def _nested(self) -> DataSpec:
        if self.inner_fold is not None and self.fold is None:
            raise ValueError("data.inner_fold is a part of what trains in a fold: give data.fold too")
        return self


class TaskSpec(Spec):
    """What the model is to tell."""

    name: Text
    """task by name: sequence_classification, multi_label, sequence_regression, position_classification, masked_tokens;
    of pairs pair_regression; of images image_classification, image_segmentation"""
    params: dict[Name, Any] = Field(default_factory=dict)
    """the task's own parameters (classes, loss, class weights), checked against its Params class"""


class EncoderSpec(Spec):
    """How letters become tensors."""

    name: Text = "one_hot"
    """encoder by name: of DNA one_hot or tokens, of others protein_tokens, protein_letters, smiles_tokens; of pairs
    pair; of images pixels"""
    params: dict[Name, Any] = Field(default_factory=dict)
    """the encoder's own parameters"""


class ModelSpec(Spec):
    """The network."""

    name: Text = "sequence_cnn"
    """architecture by name: of sequences sequence_cnn, recurrent, transformer, string_kernel or hugging_face; of pairs
    pair_network; of images image_cnn or u_net"""
    params: dict[Name, Any] = Field(default_factory=dict)
    """the architecture's own parameters; outputs and input follow from data and task"""


class AugmentSpec(Spec):
    """How training samples are varied, each by its own seed."""

    reverse_complement: bool = False
    """read every second DNA sequence on the other strand; the model is then held to be the same on both"""
    jitter_bp: WholeInt = 0
    """move each sequence by up to so many letters; what enters is N"""
    mask_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """chance of each letter to become unknown (N), which teaches a model to lean on no single one"""
    flip: bool = False
    """mirror every second image"""
    turn: bool = False
    """turn each image by 0, 90, 180 or 270 degrees"""
    crop_px: WholeInt = 0
    """train on a square of so many pixels of each image, somewhere else each time; 0 takes the whole"""
    shift_px: WholeInt = 0
    """move each image by up to so many pixels along either axis; what enters repeats its edge"""
    brightness: Annotated[float, Field(ge=0, le=5)] = 0.0
    """multiply all pixels of an image by up to exp(brightness), or divide by it"""
    contrast: Annotated[float, Field(ge=0, le=5)] = 0.0
    """multiply each pixel's distance from its channel's mean by up to exp(contrast), or divide by it"""


class TrainingSpec(Spec):
    """The recipe; every key can change the result."""

    epochs: PositiveInt = 20
    """most passes over the training rows"""
    batch_size: PositiveInt = 64
    """samples of an optimiser step, over all workers together"""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    """adamw, or sgd with momentum 0.9"""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """the highest learning rate"""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """of matrices and convolutions, not of biases and normalisations"""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """how the learning rate falls after the warm-up; linear and cosine reach zero at the end of the last epoch"""
    warmup: Share = 0.05
    """share of all steps in which the learning rate rises"""
    clip_norm: Annotated[float, Field(ge=0)] = 1.0
    """longest gradient; 0 for no limit"""
    patience: WholeInt = 0
    """epochs without a better monitored figure before training stops; 0 never stops early"""
    monitor: Text = "loss"
    """figure on the validation rows by which the best epoch is chosen: loss, or a metric of the task"""
    keep_last: bool = False
    """the network of the last epoch becomes the model, not that of the best: where the schedule says when to stop"""
    seed: WholeInt = 0
    """of first weights, order, augmentation and dropout"""
    members: Annotated[int, Field(ge=1, le=100)] = 1
    """networks of the ensemble, each with the next seed; their values are averaged"""
    window: PositiveInt = 1 << 16
    """samples that are shuffled with each other at least; fewer where so many would take more than 224 MiB"""
    length_buckets: bool = False
    """put samples of like length into a step, which saves padding; the order of steps is still drawn"""


class TransferSpec(Spec):
    """What training begins from."""

    init_from: Text | None = None
    """model folder whose weights training begins with where name and shape fit; what fits and what not is said"""
    freeze: list[Text] = Field(default_factory=list)
    """parts that stay as they begin: names of parameters or modules, patterns with *, or trunk for all but the head"""
    layer_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    """factor of the learning rate from each layer to the one before it, so that early layers move less"""


class ExecutionSpec(Spec):
    """Where and how wide to run.

    Losses are the same for any number of workers but for the order of sums; a resumed run keeps its own number's.
    """

    executor: Literal["in-process", "ray"] = "in-process"
    """in-process needs no Ray; ray trains by Ray Train, on this machine or a cluster that shares the paths"""
    address: Text | None = None
    """Ray cluster to join, as host:port or auto; unset starts a private one on this machine"""
    feed: Literal["reader", "ray-data"] | None = None
    """who reads the shards: each worker itself, or Ray Data for it (the default of the ray executor)"""
    workers: PositiveInt = 1
    """processes that share each batch"""
    threads: PositiveInt = 1
    """CPU threads of each worker within one operation"""
    device: Literal["cpu", "cuda"] = "cpu"
    """device the model trains on"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """arithmetic of the network; weights and loss stay in float32"""
    compile: bool = False
    """compile the network by torch.compile, a program for each shape of batch (32 at most): the first steps are slow,
    losses move by rounding; wherever a shape is new, the step is held against the plain network's"""
    sharding: Literal["ddp", "fsdp2"] = "ddp"
    """what several workers hold: the whole network each, or a share of its weights, gradients and moments each"""
    micro_batch: PositiveInt = 256
    """most samples that a worker takes through the network at once; the rest of its share is accumulated"""
    checkpoint_steps: PositiveInt = 500
    """steps between checkpoints within an epoch; there is one after every epoch too"""
    cache_mb: PositiveInt = 512
    """most memory of each worker for rows kept, in MiB"""


class TrainSpec(Spec):
    """How to train: all of a train spec but its data."""

    task: TaskSpec
    """what to tell (--task)"""
    encoder: EncoderSpec = Field(default_factory=EncoderSpec)
    """how letters become tensors"""
    model: ModelSpec = Field(default_factory=ModelSpec)
    """the network"""
    augment: AugmentSpec = Field(default_factory=AugmentSpec)
    """how training samples are varied"""
    training: TrainingSpec = Field(default_factory=TrainingSpec)
    """the recipe"""
    transfer: TransferSpec = Field(default_factory=TransferSpec)
    """what training begins from"""
    name: Text = "trained-model"
    """name of the model"""
    licence: Text = "not stated"
    """licence of the model, for its card"""
    note: str = ""
    """a sentence for the card: what the data are, what to beware of"""
    output: Text
    """run directory, local; a run that stopped there goes on"""
    execution: ExecutionSpec = Field(default_factory=ExecutionSpec)
    """where and how wide to run"""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        wide = self.execution
        if wide.address and wide.executor != "ray":
            raise ValueError("execution.address names a Ray cluster: set execution.executor to ray")
        if wide.feed == "ray-data" and wide.executor != "ray":
            raise ValueError("execution.feed ray-data needs execution.executor ray")
        return self


class TrainModelSpec(TrainSpec):
    """Train a model on a set of labelled sequences."""

    job: Literal["train_model"] = "train_model"
    """the job this spec is for"""
    version: Literal[1] = 1
    """version of this spec's layout"""
    data: DataSpec
    """path (SET) of the sequence set, and its split file (--splits)"""


SPEC = TrainModelSpec
TRAIN_OPTIONS = (
    Option("data.path", ("SET",)),
    Option("data.splits", ("--splits",)),
    Option("task.name", ("--task",)),
    Option("encoder.name", ("--encoder",)),
    Option("model.name", ("--model",)),
    Option("output", ("--output", "-o")),
    Option("name", ("--name",)),
    Option("training.epochs", ("--epochs",)),
    Option("training.batch_size", ("--batch-size",)),
    Option("training.learning_rate", ("--learning-rate",)),
    Option("training.seed", ("--seed",)),
    Option("training.members", ("--members",)),
    Option("transfer.init_from", ("--init-from",)),
    Option("augment.reverse_complement", ("--reverse-complement",)),
    Option("execution.executor", ("--executor",)),
    Option("execution.address", ("--address",)),
    Option("execution.workers", ("--workers", "-j")),
    Option("execution.threads", ("--threads",)),
    Option("execution.device", ("--device",)),
    Option("execution.precision", ("--precision",)),
)
"""Those of every job that trains."""
OPTIONS = (*TRAIN_OPTIONS, Option("data.fold", ("--fold",)))
"""The one place where the command's options meet the keys of the spec."""
