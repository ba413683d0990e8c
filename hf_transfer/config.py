"""What the user asked for, and nothing else.

Knows our own options, their types, defaults and help texts. Does not know how they are parsed (`hf_transfer.parsing`),
what any of them does, or what `TrainingArguments` looks like: those options travel in `FinetuneConfig.training` as the
user gave them. Imports nothing heavy, so that `--help` is quick.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Strategy = Literal["feature-extraction", "partial", "progressive", "lp-ft", "full", "scratch"]
Granularity = Literal["auto", "stage", "block"]
AugmentationPolicy = Literal["none", "light", "strong"]
AutoAugment = Literal["none", "randaugment", "trivialaugment"]
Proportions = Literal["auto", "checkpoint", "keep"]
HeadSolver = Literal["auto", "sgd", "lbfgs"]
Switch = Literal["auto", "on", "off"]
Place = Literal["auto", "cpu", "device"]
Use = Literal["research", "commercial"]

DATA_FIELDS = (
    "dataset_config",
    "dataset_revision",
    "image_column",
    "label_column",
    "train_split",
    "validation_split",
    "test_split",
    "validation_fraction",
    "test_fraction",
    "max_train_samples",
    "images_per_class",
)
"""What decides, besides the data set's name, which pictures are in which split."""


def asks_to_resume(given: object) -> bool:
    """Tells whether a value of `--resume_from_checkpoint` asks for anything but a beginning."""
    return str(given).lower() not in ("none", "false", "no", "off")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """One fine-tuning run as the user described it.

    `training` holds the fields of `transformers.TrainingArguments` that the user set, by name; everything left out
    gets our default or Trainer's (`hf_transfer.training.arguments`).
    """

    # The checkpoint
    model: str = field(
        metadata={"help": "Hub id, local folder, or `quickstart` for the small checkpoint inside this package."}
    )
    model_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of the checkpoint on the Hub."}
    )
    keep_head: bool = field(
        default=False,
        metadata={"help": "Keep the checkpoint's own head; its labels must be the data set's labels, by name."},
    )
    head_dropout: float | None = field(
        default=None, metadata={"help": "Dropout before the head, in place of the checkpoint's own."}
    )

    # The pictures
    dataset: str = field(
        metadata={
            "help": "Hub data set id, folder of class folders, CSV/JSONL/parquet file, .zip/.tar of a folder, "
            "or `digits` for the scans that scikit-learn installs."
        }
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration (subset) of a Hub data set."})
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of the data set on the Hub."}
    )
    image_column: str | None = field(default=None, metadata={"help": "Column of the pictures; guessed when left out."})
    label_column: str | None = field(default=None, metadata={"help": "Column of the labels; guessed when left out."})
    train_split: str | None = field(
        default=None, metadata={"help": "Name of the training split; guessed when left out."}
    )
    validation_split: str | None = field(
        default=None, metadata={"help": "Name of the validation split; guessed, or made, when left out."}
    )
    test_split: str | None = field(
        default=None, metadata={"help": "Name of the test split; guessed, or made, when left out."}
    )
    validation_fraction: float = field(
        default=0.15,
        metadata={"help": "Share of the training images that becomes the validation split if there is none."},
    )
    test_fraction: float = field(
        default=0.15, metadata={"help": "Share of the training images that becomes the test split if there is none."}
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Train on at most this many images, for a quick look."}
    )
    images_per_class: int | None = field(
        default=None, metadata={"help": "Train on at most this many images of each class, for a quick look."}
    )

    # The pictures as tensors
    augmentation: AugmentationPolicy = field(
        default="light", metadata={"help": "How training images are varied; validation and test images never are."}
    )
    proportions: Proportions = field(
        default="auto",
        metadata={
            "help": "`checkpoint` prepares pictures as the checkpoint does, even where that squeezes them; `keep` "
            "cuts their edges instead; `auto` cuts where pictures are neither nearly square nor very long."
        },
    )
    auto_augment: AutoAugment | None = field(
        default=None, metadata={"help": "Automatic augmentation, in place of the policy's own choice."}
    )
    random_erasing: float | None = field(
        default=None, metadata={"help": "Probability of random erasing, in place of the policy's own."}
    )
    mixup: float | None = field(
        default=None, metadata={"help": "Mixup's alpha, in place of the policy's own; 0 turns it off."}
    )
    cutmix: float | None = field(
        default=None, metadata={"help": "CutMix's alpha, in place of the policy's own; 0 turns it off."}
    )

    augment_on: Place = field(
        default="auto",
        metadata={"help": "Vary training images one by one (`cpu`) or in batches (`device`); `auto` measures both."},
    )

    # The training
    strategy: Strategy = field(
        default="feature-extraction",
        metadata={
            "help": "`feature-extraction` trains a new head on frozen features, `partial` the last layer groups too, "
            "`progressive` the head first and then group by group, `lp-ft` the head first and then everything, `full` "
            "everything gently, `scratch` the same architecture from fresh weights."
        },
    )
    granularity: Granularity = field(
        default="auto", metadata={"help": "Layer groups by `stage` or by `block`; `auto` by the shape of the network."}
    )
    train_last: int | None = field(
        default=None,
        metadata={"help": "Groups that learn, besides the head: by default a quarter for `partial`, else all."},
    )
    unfreeze_every: str | None = field(
        default=None,
        metadata={
            "help": "For `progressive`: time between two thaws, in epochs (`1`) or steps (`200steps`); by default all "
            "groups thaw within the first half of the run."
        },
    )
    unfreeze_at: list[str] | None = field(
        default=None,
        metadata={"help": "For `progressive`: when each group thaws, from the last one down, such as `1 2 2.5`."},
    )
    unfreeze_on_plateau: int | None = field(
        default=None,
        metadata={"help": "For `progressive`: thaw the next group after this many evaluations without a better one."},
    )
    probe: str | None = field(
        default=None,
        metadata={"help": "For `lp-ft`: how long the head is trained alone, such as `1` (epoch) or `200steps`."},
    )
    tune_norms: str | None = field(
        default=None,
        metadata={"help": "For `feature-extraction`: norms learn too at first, this long, such as `1` (epoch)."},
    )
    lr_backbone: float | None = field(
        default=None, metadata={"help": "Learning rate of the backbone; another name for --learning_rate."}
    )
    layer_decay: str = field(
        default="auto",
        metadata={
            "help": "Rate of each layer group as a share of the one above it, such as 0.75; `none` for one rate; "
            "`auto` for what was published with the checkpoint's family."
        },
    )
    lr_groups: list[str] | None = field(
        default=None,
        metadata={"help": "Rates by name of layer groups or parameters, such as `embeddings=0 'layers.1*=1e-5'`."},
    )
    lr_head: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate of the head; ten times --learning_rate if that is given, else measured on the "
            "features that the head sees."
        },
    )
    l2_sp: float | None = field(
        default=None,
        metadata={"help": "Pull towards the pretrained weights in place of weight decay (L2-SP), such as 0.1."},
    )
    ema: float | None = field(
        default=None,
        metadata={"help": "Evaluate and keep an exponential moving average of the weights, such as 0.999."},
    )
    wise_ft: bool = field(
        default=False,
        metadata={"help": "At the end, mix with the pretrained weights as far as validation gets better (WiSE-FT)."},
    )
    class_weights: Literal["none", "balanced"] = field(
        default="none", metadata={"help": "`balanced` weighs each class by the inverse of its share of the images."}
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after this many evaluations without a better one; 0 never stops early."}
    )
    early_stopping_threshold: float = field(
        default=0.0, metadata={"help": "How much better an evaluation must be to count as better."}
    )
    channels_last: Switch = field(
        default="auto", metadata={"help": "Memory layout of convolutions; `auto` turns it on where it helps."}
    )

    head_solver: HeadSolver = field(
        default="auto",
        metadata={"help": "`sgd` trains the head step by step, `lbfgs` solves for it; `auto` solves in `lp-ft`."},
    )

    # What is computed once
    decoded_cache: Switch = field(
        default="auto",
        metadata={"help": "Decode each picture once and keep it; `auto` where it is looked at more than once."},
    )
    cache: Switch = field(
        default="auto",
        metadata={
            "help": "Compute what lies below the lowest learning layer once for each picture and view, and train on "
            "what was kept; `auto` where pictures are seen often enough for it."
        },
    )
    cache_views: int | None = field(
        default=None,
        metadata={"help": "Augmented views kept of a picture: 2, or 4 in a long `partial` with BatchNorm."},
    )
    cache_dir: str | None = field(
        default=None, metadata={"help": "Folder of what can be computed again; by default beside the Hub's cache."}
    )
    cache_limit: str | None = field(
        default=None, metadata={"help": "Disk space that each kind of cache may take, such as 500MB; 20GB by default."}
    )
    keep_cache: bool = field(
        default=True, metadata={"help": "Leave what was computed for the next run; the oldest goes first."}
    )

    # The licences
    use: Use | None = field(
        default=None,
        metadata={"help": "What the model is for; a commercial use that is not known to be allowed stops the run."},
    )
    data_license: str | None = field(
        default=None,
        metadata={"help": "Licence of pictures on this disk, by your own word; `own` where they are yours."},
    )
    license_override: list[str] | None = field(
        default=None,
        metadata={"help": "Your word on the licence of a work, such as `owner/model=apache-2.0`; needs evidence."},
    )
    license_evidence: list[str] | None = field(
        default=None, metadata={"help": "For each --license_override a link, or a file such as a letter."}
    )
    license: str | None = field(
        default=None,
        metadata={"help": "Publish under this licence: as strict as what the works ask, or stricter."},
    )
    data_license_report_only: bool = field(
        default=False,
        metadata={"help": "Show the licences of data, but do not take them to bind the model."},
    )

    # The push (`--push_to_hub` and the `--hub_...` options are Trainer's)
    widget_images: bool = field(
        default=True,
        metadata={"help": "With --push_to_hub, show three test pictures where the licence of the data allows it."},
    )

    # The results
    linear_probe: bool = field(
        default=False,
        metadata={"help": "Measure a linear head on the frozen checkpoint too, in one pass over all pictures."},
    )
    metrics: list[str] | None = field(
        default=None,
        metadata={"help": "Further metrics, as `evaluate.load` names them, beside those always reported."},
    )
    check_usage: bool = field(
        default=True,
        metadata={
            "help": "Run the lines that the card shows for using the model before they are written, in a process of "
            "its own, which takes seconds; without that the card does not show them."
        },
    )
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Replace the finished run that --output_dir holds already."}
    )
    debug: bool = field(default=False, metadata={"help": "Show the traceback of an error."})

    training: dict[str, Any] = field(default_factory=dict, metadata={"parsed": False})
    recipe: str | None = field(default=None, metadata={"parsed": False})
    command: tuple[str, ...] = field(default=(), metadata={"parsed": False})
