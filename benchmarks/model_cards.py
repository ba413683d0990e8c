"""Makes the reference cards in `model_cards/`: runs a recipe and keeps its card, its report and its figures.

Usage:
    python benchmarks/model_cards.py                # run all recipes that need no network, and keep what they leave
    python benchmarks/model_cards.py quickstart     # one of them
    python benchmarks/model_cards.py --render       # only render the cards again from the reports that are kept

`tests/test_model_cards.py` renders them again and compares byte for byte.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CARDS = ROOT / "model_cards"
RECIPES = ("quickstart",)
"""The others need checkpoints from the Hub."""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", default=list(RECIPES))
    parser.add_argument("--render", action="store_true", help="render again, and run nothing")
    options = parser.parse_args(argv)
    for recipe in options.recipes:
        if not options.render:
            run(recipe)
        render(CARDS / recipe)


def run(recipe: str) -> None:
    """Runs a recipe and keeps its report, without folders of this computer, its metrics and its figures."""
    from hf_transfer.publishing.local_places import without_local_places
    from hf_transfer.report import read_run, write_json

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / recipe
        command = [sys.executable, "finetune.py", f"recipes/{recipe}.yaml", "--disable_tqdm", "true"]
        subprocess.run([*command, "--output_dir", str(folder)], cwd=ROOT, check=True)
        report = read_run(folder)
        target = CARDS / recipe
        target.mkdir(exist_ok=True)
        write_json(without_local_places(report, folder), target / "run.json")
        for name in ("metrics.json", *(name for name in report["outputs"].values() if name.endswith(".png"))):
            shutil.copyfile(folder / name, target / name)
        written = (folder / "README.md").read_bytes()
        if render(target).read_bytes() != written:
            raise SystemExit(f"the card of {recipe} depends on folders of this computer")


def render(folder: Path) -> Path:
    """Renders the card of a kept report, and returns it."""
    from hf_transfer.publishing.card import write_card
    from hf_transfer.report import read_run

    return write_card(read_run(folder), folder)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
