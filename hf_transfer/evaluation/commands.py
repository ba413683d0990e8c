"""The `evaluate` and `predict` commands.

Knows their options and what they print. What they compute is next door. Imports nothing heavy, so that `--help` is quick.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_transfer.config import FinetuneConfig
from hf_transfer.errors import UserError

_DATA_OPTIONS = (
    "dataset",
    "dataset_config",
    "dataset_revision",
    "image_column",
    "label_column",
    "train_split",
    "validation_split",
    "test_split",
)


def evaluate_command(argv: Sequence[str]) -> int:
    """Measures a saved model on a split of a data set; returns the exit code."""
    args = _evaluate_parser().parse_args(argv)
    model, run = _model_and_run(args.model)
    given = {name: getattr(args, name) for name in _DATA_OPTIONS if getattr(args, name) is not None}
    remembered = _remembered_data(run) if "dataset" not in given else {}
    if "dataset" not in given | remembered:
        raise UserError(
            f"{args.model} does not say which data to use.",
            "a run's folder, or --dataset",
            "--dataset FOLDER_OR_HUB_ID",
        )
    from hf_transfer.data.loading import load_image_data
    from hf_transfer.evaluation.evaluator import evaluate_model
    from hf_transfer.report import to_plain, write_json

    data = load_image_data(FinetuneConfig(model=model, **(remembered | given)))
    result = evaluate_model(
        model,
        data.split(args.split),
        args.split,
        data.label_names,
        extra_metrics=args.metrics or (),
        batch_size=args.batch_size,
    )
    facts = {"model": args.model, "dataset": data.name, "fingerprint": data.fingerprint, **dataclasses.asdict(result)}
    if args.output:
        write_json(facts, args.output)
    print(json.dumps(to_plain(facts), indent=2, ensure_ascii=False) if args.json else _table(facts))
    return 0


def predict_command(argv: Sequence[str]) -> int:
    """Names the classes of pictures; returns 1 if some could not be read, else 0."""
    args = _predict_parser().parse_args(argv)
    if args.top_k < 1:
        raise UserError(f"--top_k {args.top_k}", "1 or more", "--top_k 3")
    model_dir, _ = _model_and_run(args.model)
    from hf_transfer.evaluation.evaluator import load_model
    from hf_transfer.evaluation.prediction import FORMATS, find_pictures, predict_files, write_rows

    if args.output and args.output.suffix.lower() not in FORMATS:
        raise UserError(f"--output {args.output}: unknown ending {args.output.suffix!r}.", ", ".join(FORMATS))
    files = find_pictures(args.paths)
    model, processor = load_model(model_dir)
    rows = predict_files(model, processor, files, top_k=args.top_k, batch_size=args.batch_size)
    if args.output:
        write_rows(rows, args.output)
    if args.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif not args.output:
        print("\n".join(_line(row) for row in rows))
    failed = sum(bool(row["error"]) for row in rows)
    if failed and not args.json:
        print(f"{failed} of {len(rows)} pictures could not be read.")
    return 1 if failed else 0


def _evaluate_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("hf-transfer evaluate", description=evaluate_command.__doc__, allow_abbrev=False)
    parser.add_argument("model", help="a run's folder, a model folder, or a Hub id")
    for name in _DATA_OPTIONS:
        field = FinetuneConfig.__dataclass_fields__[name]
        extra = " By default the data of the run." if name == "dataset" else ""
        parser.add_argument(f"--{name}", help=field.metadata["help"] + extra)
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test", help="what to measure on")
    parser.add_argument("--metrics", nargs="+", help=FinetuneConfig.__dataclass_fields__["metrics"].metadata["help"])
    _add_output_options(parser, "write the result as JSON to this file")
    return parser


def _predict_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("hf-transfer predict", description=predict_command.__doc__, allow_abbrev=False)
    parser.add_argument("model", help="a run's folder, a model folder, or a Hub id")
    parser.add_argument("paths", nargs="+", help="pictures, folders of pictures, or glob patterns")
    parser.add_argument("--top_k", type=int, default=1, help="how many classes to name for each picture")
    _add_output_options(parser, "write a table to this file: .csv, .jsonl or .parquet")
    return parser


def _add_output_options(parser: argparse.ArgumentParser, output_help: str) -> None:
    parser.add_argument("--batch_size", type=int, default=32, help="pictures at a time")
    parser.add_argument("--output", type=Path, help=output_help)
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _model_and_run(given: str) -> tuple[str, Path | None]:
    """Returns the model's folder or id and, where `given` is a run or a model inside of one, the run's folder."""
    path = Path(given).expanduser()
    if (path / "model" / "config.json").is_file():
        return str(path / "model"), path
    if (path / "config.json").is_file():
        return str(path), path.parent
    if path.exists():
        raise UserError(f"{given} holds no model.", "a run's folder, its model/ folder, or a Hub id")
    return given, None


def _remembered_data(run: Path | None) -> dict[str, Any]:
    """Returns the data options of a run, so that its splits are made again in the same way."""
    report = run / "run.json" if run else None
    if report is None or not report.is_file():
        return {}
    config = json.loads(report.read_text(encoding="utf-8"))["config"]
    names = (*_DATA_OPTIONS, "validation_fraction", "test_fraction")
    return {name: config[name] for name in names if config.get(name) is not None}


def _table(facts: dict[str, Any]) -> str:
    low, high = facts["accuracy_interval"]
    lines = [f"{facts['num_images']} {facts['split']} pictures of {facts['dataset']}"]
    lines += [f"  {name:<18} {value:.4f}" for name, value in facts["metrics"].items()]
    lines.append(f"  accuracy's 95 % interval: {low:.4f} to {high:.4f}")
    width = max(len(row["label"]) for row in facts["per_class"])
    lines.append(f"  {'class':<{width}}  pictures  precision  recall      f1")
    lines += [
        f"  {row['label']:<{width}}  {row['count']:>8}  {row['precision']:>9.4f}  {row['recall']:>6.4f}  {row['f1']:.4f}"
        for row in facts["per_class"]
    ]
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    if row["error"]:
        return f"{row['file']}\t{row['error']}"
    ranks = ["", *(f"_{rank}" for rank in range(2, len(row) // 2 + 1))]
    return "\t".join([row["file"], *(f"{row[f'label{rank}']} {row[f'score{rank}']:.4f}" for rank in ranks)])
