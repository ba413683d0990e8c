"""CI runs what README tells people to run."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_ci_runs_the_commands_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    test_command = 'pip install -e ".[test]" && pytest'
    assert test_command in readme.splitlines()
    assert test_command in script.splitlines()
    main_command = "accelerate launch finetune.py recipes/quickstart.yaml"
    assert main_command in readme
    assert main_command in script


def test_the_first_command_comes_early():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert any("accelerate launch finetune.py" in line for line in lines[:12])


def test_what_the_readme_points_to_exists():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:recipes|hf_transfer|benchmarks)/[\w./-]+)`", readme))
    paths |= set(re.findall(r"\]\(([\w./-]+)\)", readme))
    assert len(paths) > 5
    for path in paths:
        assert (ROOT / path).exists(), path
