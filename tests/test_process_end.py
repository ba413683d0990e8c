"""A process of several leaves no thread of its group behind: it could abort the process while the interpreter ends."""

import json
import sys
from pathlib import Path

import pytest
import torch

from tests.processes import run_at_root
from tests.tiny_project import tiny_project


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="names of threads are read from /proc")
def test_no_thread_of_the_group_outlives_a_run(tmp_path: Path):
    torch.manual_seed(0)
    tiny_project(tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    result = run_at_root([*command, "-m", "tests.ended_run", str(tmp_path)])
    assert result.returncode == 0, result.stderr[-3000:]
    for rank in range(2):
        threads = json.loads((tmp_path / f"threads-{rank}.json").read_text(encoding="utf-8"))
        assert threads["ended"] == []
        # When this fails, torch ends them with the group (pytorch#190489), and collecting can go.
        assert threads["parted"] != []
