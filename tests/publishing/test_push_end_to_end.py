"""Train, push, download and predict by Hub id, as a user types it: processes of their own, in each upload mode."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub_server import LARGE_FILES, HubServer
from tests.ports import unused_port
from tests.publishing.finished_run import MODEL_FILES, TOKEN, copy_of, finish_run, make_project, texts_below

ROOT = Path(__file__).resolve().parents[2]


def typed(words: list[str], home: Path, **settings: str) -> subprocess.CompletedProcess:
    """Runs `hf-transfer`, with a cache that nobody else has filled."""
    environment = {**os.environ, "HF_HOME": str(home), "HF_TOKEN": TOKEN, "OMP_NUM_THREADS": "1", **settings}
    command = [sys.executable, "-m", "hf_transfer", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)


CASES = [
    pytest.param("transformers", "xet"),
    pytest.param("timm", "lfs"),
    *(
        pytest.param(kind, mode, marks=pytest.mark.slow)
        for kind, mode in (("transformers", "regular"), ("transformers", "lfs"), ("timm", "regular"), ("timm", "xet"))
    ),
]


@pytest.mark.parametrize(("kind", "mode"), CASES)
def test_train_push_download_predict(hub: HubServer, repo_id: str, tmp_path: Path, kind: str, mode: str):
    hub.add_user(TOKEN, "someone")
    hub.large_files = () if mode == "regular" else LARGE_FILES
    settings = {"HF_HUB_DISABLE_XET": "0" if mode == "xet" else "1"}
    words = make_project(tmp_path, kind)
    trained = typed([*words, "--push_to_hub", "--hub_model_id", repo_id], tmp_path / "home", **settings)
    assert trained.returncode == 0, trained.stderr
    assert "Published (private)" in trained.stdout, trained.stderr
    assert ("lfs_put" in hub.calls) == (mode == "lfs")
    assert ("xet_token" in hub.calls) == (mode == "xet")
    repository = hub.repositories["models", repo_id]
    # A checkpoint of timm keeps its processor in config.json.
    files = MODEL_FILES if kind == "transformers" else MODEL_FILES - {"preprocessor_config.json"}
    assert set(repository.commits[repository.refs["main"]]) > files
    state = json.loads((tmp_path / "run" / "push.json").read_text(encoding="utf-8"))
    assert state["proof"]["largest_difference"] == 0
    assert TOKEN not in trained.stdout + trained.stderr + texts_below(tmp_path / "run")

    pictures = [str(path) for path in sorted((tmp_path / "pictures" / "test").glob("*/0.png"))]
    answers = [
        typed(["predict", model, *pictures, "--json"], tmp_path / "another-home", **settings)
        for model in (repo_id, str(tmp_path / "run"))
    ]
    assert answers[0].returncode == 0, answers[0].stderr
    assert json.loads(answers[0].stdout) == json.loads(answers[1].stdout)
    assert len(json.loads(answers[0].stdout)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("role", ["write", "read"])
def test_two_processes(hub: HubServer, repo_id: str, tmp_path: Path, role: str):
    hub.add_user(TOKEN, "someone", role=role)
    words = [*make_project(tmp_path)[1:], "--push_to_hub", "--hub_model_id", repo_id]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines"]
    command += ["1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(unused_port())]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*command, "finetune.py", *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280
    )
    if role == "read":
        assert result.returncode != 0
        assert result.stderr.count("error: Your token may only read") == 1
        assert not hub.repositories
        assert not (tmp_path / "run").exists()
        return
    assert result.returncode == 0, result.stderr
    assert len(list(hub.repositories["models", repo_id].history())) == 2
    assert hub.calls.count("create_repo") == 1
    report = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert report["hardware"]["num_processes"] == 2


def test_xet_without_its_storage(hub: HubServer, repo_id: str, tmp_path: Path):
    hub.add_user(TOKEN, "someone")
    run = copy_of(finish_run(tmp_path / "project"), tmp_path)
    hub.inject("xet_token", "403", times=None)
    settings = {"HF_HUB_DISABLE_XET": "0"}
    pushed = typed(["push", str(run), "--repo-id", repo_id], tmp_path / "home", **settings)
    assert pushed.returncode in (1, 2), pushed.stderr
    assert pushed.stderr.count("error: ") == 1
    assert "Traceback" not in pushed.stderr
    assert TOKEN not in pushed.stdout + pushed.stderr + texts_below(run)
    assert len(hub.repositories["models", repo_id].commits) == 1
    hub.faults.clear()
    again = typed(["push", str(run)], tmp_path / "home", **settings)
    assert again.returncode == 0, again.stderr
    assert len(list(hub.repositories["models", repo_id].history())) == 2
