"""One run from the first word to the last file: the story of the house as code.

Knows the order of the stages and what is handed from one to the next. Every stage is made elsewhere.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transformers import TrainingArguments, set_seed
from transformers.utils.logging import disable_progress_bar

from hf_transfer.allocator import give_back_freed_memory
from hf_transfer.config import FinetuneConfig
from hf_transfer.data.decode_once import TrainingInput, decode_once
from hf_transfer.data.image_data import ImageData
from hf_transfer.data.loading import load_image_data
from hf_transfer.data.proportions import choose_proportions
from hf_transfer.data.transforms import resolve_augmentation
from hf_transfer.decisions import decide, format_decisions, settle
from hf_transfer.environment import hardware, package_versions
from hf_transfer.evaluation.evaluator import Evaluation, evaluate_model
from hf_transfer.evaluation.metrics import ClassificationMetrics
from hf_transfer.facts import checkpoint_facts, config_facts, data_facts, not_measured, training_facts
from hf_transfer.linear_probe import measure_linear_probe
from hf_transfer.models.checkpoint import Checkpoint, load_checkpoint
from hf_transfer.publishing.license_check import check_run, license_decision
from hf_transfer.publishing.push_of_training import check_push, push_after_training, wants_push
from hf_transfer.report import Decision, RunReport
from hf_transfer.run_folder import OUTPUTS, prepare_run_folder, write_outputs
from hf_transfer.training.arguments import (
    build_training_arguments,
    keep_to_one_gpu,
    planned_arguments,
    planned_visits,
    wants_batch_size,
)
from hf_transfer.training.head_decay import follows_memory, head_decay
from hf_transfer.training.precision import Precision, choose_precision
from hf_transfer.training.process_group import part_processes
from hf_transfer.training.rates import plan_rates
from hf_transfer.training.resume_record import PRECISION
from hf_transfer.training.sampled_pictures import SampledPictures
from hf_transfer.training.session import build_trainer, mix_with_pretrained, save_model, train
from hf_transfer.training.varied_on import vary_where_faster
from hf_transfer.training.wise_ft import backbone_state


def finetune(config: FinetuneConfig) -> RunReport | None:
    """Fine-tunes a checkpoint as the user asked and writes everything to the output folder.

    Args:
        config (`FinetuneConfig`):
            What the user asked for.

    Returns:
        `RunReport`: what `run.json` holds; `None` in every process but the main one of a distributed run.

    Raises:
        UserError: for every mistake that the user can mend.
    """
    disable_progress_bar()
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), StageClock()
    folder = Path(planned_arguments(config)["output_dir"]).expanduser()
    prepare_run_folder(config, folder)
    augmentation = resolve_augmentation(
        config.augmentation, config.auto_augment, config.random_erasing, config.mixup, config.cutmix
    )
    with clock.stage("licences"):
        verdict = check_run(config)
        check_push(config, folder, verdict)
    with clock.stage("data"):
        data = load_image_data(config)
        give_back_freed_memory()
        compute_metrics = ClassificationMetrics(data.label_names, config.metrics or ())
    with clock.stage("checkpoint"):
        set_seed(int(config.training.get("seed", TrainingArguments.seed)))
        checkpoint = load_checkpoint(
            config.model,
            label_names=data.label_names,
            revision=config.model_revision,
            keep_head=config.keep_head,
            fresh_weights=config.strategy == "scratch",
            head_dropout=config.head_dropout,
        )
        pixels = choose_proportions(checkpoint.image_processor, data.train, config.proportions, config.keep_head)
        checkpoint = dataclasses.replace(checkpoint, image_processor=pixels.image_processor)
        sample = SampledPictures(data, checkpoint)
        rates = plan_rates(config, sample)
    with clock.stage("training"):
        args, precision = arguments_of(config, rates.backbone, sample)
        del sample  # with its pixels, which the training has no room to spare for
        if follows_memory(config, args):
            args.weight_decay = head_decay(args, len(data.train))
        visits = planned_visits(args, len(data.train))
        pictures = decode_once(config, data, checkpoint.image_processor, augmentation, args.seed, visits)
        pictures = vary_where_faster(config, args, pictures, checkpoint.image_processor, augmentation)
        trainer = build_trainer(config, data, checkpoint, args, augmentation, rates, compute_metrics, pictures)
        half = precision.half_learning(args.device.type)
        if half is not None:
            trainer.learn_in(half)
            trainer.run_identity = {**trainer.run_identity, PRECISION: precision.recorded}
        decisions = decide(
            config, data, checkpoint, args, augmentation, trainer, rates, pixels.reason, precision.reason, pictures
        )
        decisions = (license_decision(verdict), *decisions)
        if args.should_save:
            _print_start(decisions, (*verdict.notes, *data.notes, *checkpoint.notes))
        start = backbone_state(checkpoint.model, checkpoint.head_parameter_names) if config.wise_ft else {}
        outcome = train(trainer, args, find_batch_size=wants_batch_size(config))
        decisions = settle(decisions, outcome, augmentation)
        if config.wise_ft:
            chosen = mix_with_pretrained(trainer, start, checkpoint.head_parameter_names)
            outcome = dataclasses.replace(outcome, wise_ft_alpha=chosen.alpha)
    with clock.stage("saving"):
        save_model(trainer, folder / OUTPUTS["model"])
        trainer.accelerator.wait_for_everyone()
        if not config.keep_cache:
            pictures.discard()
    if wants_push(config):
        # The other processes would wait for the push, and give up in the middle of a long one.
        part_processes()
    if not args.should_save:
        return None
    with clock.stage("evaluation"):
        # The batches of an evaluation are larger than those of a training, and fit into nothing that it left.
        give_back_freed_memory()
        evaluation = _evaluate(config, data, folder, args.per_device_eval_batch_size, pictures)
        probe = _probe(config, data, checkpoint, args.per_device_eval_batch_size) if config.linear_probe else None
    report = RunReport(
        command=config.command,
        config=config_facts(config),
        training_arguments=args.to_sanitized_dict(),
        started=started,
        versions=package_versions(),
        hardware=hardware(args.world_size),
        seed=args.seed,
        data=data_facts(data),
        checkpoint=checkpoint_facts(checkpoint),
        decisions=decisions,
        history=outcome.history,
        training=training_facts(outcome, pictures, trainer, checkpoint),
        evaluation={split: dataclasses.asdict(result) for split, result in evaluation.items()},
        seconds=clock.seconds,
        outputs=OUTPUTS,
        license=dataclasses.asdict(verdict),
        linear_probe=probe,
        not_measured=not_measured(),
    )
    report = write_outputs(report, data, evaluation, folder, config.check_usage)
    _print_results(report, evaluation, folder)
    if wants_push(config):
        push_after_training(config, folder, data.test)
    return report


def arguments_of(
    config: FinetuneConfig, learning_rate: float, sample: SampledPictures
) -> tuple[TrainingArguments, Precision]:
    """Builds the arguments of the run in the precision that is chosen for it.

    Args:
        config (`FinetuneConfig`):
            What the user asked for.
        learning_rate (`float`):
            The rate of the backbone, or of the head where only the head learns.
        sample (`SampledPictures`):
            What the precision may be chosen by.

    Returns:
        `TrainingArguments` and [`Precision`], which says why.

    Raises:
        UserError: for every mistake in what the user asked for.
    """
    # At first to learn which process this is, and on which device.
    args = build_training_arguments(config, learning_rate)
    precision = choose_precision(config, args, sample)
    if precision.name != args.mixed_precision:
        args = build_training_arguments(config, learning_rate, precision.name)
    keep_to_one_gpu(args)
    return args, precision


class StageClock:
    """Wall-clock seconds of each stage of a run."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measures the time spent inside."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def _evaluate(
    config: FinetuneConfig, data: ImageData, folder: Path, batch_size: int, pictures: TrainingInput
) -> dict[str, Evaluation]:
    """Measures the model as reloaded from the saved files; the test split is touched here and nowhere before."""
    made_before = {"validation": pictures.processed} if config.keep_cache else {}
    return {
        split: evaluate_model(
            folder / OUTPUTS["model"],
            data.split(split),
            split,
            data.label_names,
            train_counts=data.class_counts("train"),
            extra_metrics=config.metrics or (),
            batch_size=batch_size,
            processed=made_before.get(split),
        )
        for split in ("validation", "test")
    }


def _probe(config: FinetuneConfig, data: ImageData, checkpoint: Checkpoint, batch_size: int) -> dict[str, Any]:
    revision = checkpoint.revision or config.model_revision
    probe = measure_linear_probe(config.model, revision, data, checkpoint.image_processor, batch_size)
    if probe["problem"]:
        print(f"note: no linear head was measured: {probe['problem']}.")
    return probe


def _print_start(decisions: Sequence[Decision], notes: Sequence[str]) -> None:
    print("What will be done, and why:", format_decisions(decisions), sep="\n")
    for note in notes:
        print(f"  note: {note}")
    print(flush=True)


def _print_results(report: RunReport, evaluation: dict[str, Evaluation], folder: Path) -> None:
    print("\nMeasured on the model as reloaded from the saved files:")
    for split, result in evaluation.items():
        low, high = result.accuracy_interval
        others = "  ".join(
            f"{name} {result.metrics[name]:.4f}"
            for name in ("balanced_accuracy", "macro_f1")
            if name in result.metrics
        )
        print(
            f"  {split:<10}  {result.num_images} images  accuracy {result.metrics['accuracy']:.4f} "
            f"(95 % interval {low:.3f} to {high:.3f})  {others}"
        )
    if report.linear_probe and report.linear_probe["metrics"]:
        accuracy = report.linear_probe["metrics"]["test"]["accuracy"]
        print(f"  a linear head on the frozen checkpoint: test accuracy {accuracy:.4f}")
    print("Time:", ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in report.seconds.items()))
    print(f"Written to {folder}:", ", ".join(OUTPUTS.values()))
    print(f"Use it: hf-transfer predict {folder / OUTPUTS['model']} PICTURES...", flush=True)
