"""A whole run in one of several processes, which tells the threads of its process group after it has parted and ended.

`python -m torch.distributed.run --nproc_per_node 2 -m tests.ended_run FOLDER` trains on the tiny project in the folder
and writes `threads-RANK.json` there.
"""

import json
import os
import sys
from pathlib import Path

from hf_transfer.cli import run_command
from hf_transfer.training import process_group


def group_threads() -> list[str]:
    """Returns the names of this process's threads that gloo started."""
    names = [(task / "comm").read_text(encoding="utf-8").strip() for task in Path("/proc/self/task").iterdir()]
    return [name for name in names if "gloo" in name]


def main(folder: Path) -> None:
    part = process_group.part_processes
    threads: dict[str, list[str]] = {}

    def part_and_tell() -> None:
        part()
        threads["parted"] = group_threads()

    process_group.part_processes = part_and_tell
    words = ["--model", str(folder / "checkpoint"), "--dataset", str(folder / "pictures"), "--strategy", "full"]
    words += ["--max_steps", "2", "--use_cpu", "--disable_tqdm", "true", "--check_usage", "false"]
    assert run_command("train", [*words, "--output_dir", str(folder / "run")]) == 0
    threads["ended"] = group_threads()
    (folder / f"threads-{os.environ['RANK']}.json").write_text(json.dumps(threads), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
