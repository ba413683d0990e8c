"""Archives are unpacked once, all or nothing, and never outside of their folder."""

import io
import lzma
import os
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import datasets
import pytest

from hf_transfer.data.archives import is_archive, unpack
from hf_transfer.data.folders import read_folder
from hf_transfer.data.loading import load_image_data
from hf_transfer.errors import UserError
from tests.data.pictures import config_for, contents, png, write_folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of each test's own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache" / "datasets")
    return tmp_path / "cache"


def pack(folder: Path, archive: Path) -> Path:
    """Packs a folder, with its name, by the archive's suffix."""
    paths = sorted(folder.rglob("*"))
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in paths:
                packed.write(path, path.relative_to(folder.parent))
    else:
        kind = {".tgz": "w:gz", ".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz", ".tar": "w"}[archive.suffix.lower()]
        with tarfile.open(archive, kind) as packed:
            packed.add(folder, folder.name)
    return archive


def outside(root: Path, cache: Path) -> list[str]:
    """Lists the files that are not in the unpacked folder."""
    unpacked = cache / "datasets" / "hf_transfer-archives"
    return sorted(
        path.name for path in root.rglob("*") if path.is_file() and not any(p.parent == unpacked for p in path.parents)
    )


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".TAR"])
def test_every_kind(tmp_path: Path, suffix: str):
    folder = write_folder(tmp_path / "pets", {"train/cat": 2, "train/dog": 1, "test/cat": 1})
    archive = pack(folder, tmp_path / f"pets{suffix}")
    assert is_archive(archive)
    splits = read_folder(unpack(archive))
    assert {name: table.labels for name, table in splits.items()} == {"train": ["cat", "cat", "dog"], "test": ["cat"]}
    assert contents(splits["train"].images) == {png(0), png(1), png(2)}


def test_other_files_are_no_archives(tmp_path: Path):
    assert not is_archive(tmp_path / "pets.csv")
    assert not is_archive(tmp_path / "tar")


def test_the_same_data_as_from_the_folder(tmp_path: Path):
    folder = write_folder(tmp_path / "pets", {"cat": 9, "dog": 8})
    unpacked = load_image_data(config_for(folder))
    packed = load_image_data(config_for(pack(folder, tmp_path / "renamed.zip")))
    assert packed.kind == "archive"
    assert packed.fingerprint == unpacked.fingerprint
    assert packed.split_methods == unpacked.split_methods


def test_unpacked_once_and_again_when_it_changes(tmp_path: Path):
    folder = write_folder(tmp_path / "pets", {"cat": 1, "dog": 1})
    archive = pack(folder, tmp_path / "pets.tar")
    first = unpack(archive)
    (first / "mark").touch()
    assert (unpack(archive) / "mark").exists()
    moved = archive.rename(tmp_path / "elsewhere.tar")
    assert unpack(moved) == first
    (folder / "cat" / "1.png").write_bytes(png(7))
    again = unpack(pack(folder, moved))
    assert again != first
    assert len(list(again.rglob("*.png"))) == 3


def test_a_zip_that_climbs_out(tmp_path: Path, cache: Path):
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("../../../../climbed.png", png(0))
        packed.writestr("/absolute.png", png(1))
        packed.writestr("cat/0.png", png(2))
    folder = unpack(archive)
    assert outside(tmp_path, cache) == ["evil.zip"]
    assert (folder / "cat" / "0.png").read_bytes() == png(2)
    assert not Path("/absolute.png").exists()


def test_a_zip_with_a_link_that_leads_out(tmp_path: Path, cache: Path):
    (tmp_path / "target").mkdir()
    link = zipfile.ZipInfo("cat")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(link, str(tmp_path / "target"))
        packed.writestr("cat/0.png", png(2))
    folder = unpack(archive)
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert outside(tmp_path, cache) == ["evil.zip"]


def tar_of(path: Path, *members: tarfile.TarInfo) -> Path:
    """Writes a tar of members, files with some content."""
    with tarfile.open(path, "w") as packed:
        for member in members:
            content = png(0) if member.isfile() else b""
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return path


def linked(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    """Returns a member that is a link."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "members",
    [
        [tarfile.TarInfo("../../../../climbed.png")],
        [linked("cat", "../../../..", tarfile.SYMTYPE), tarfile.TarInfo("cat/climbed.png")],
        [linked("cat", "/tmp", tarfile.SYMTYPE)],
        [linked("cat/0.png", "../../../../secret.png", tarfile.LNKTYPE)],
        [linked("cat/pipe.png", "", tarfile.FIFOTYPE)],
    ],
    ids=["climbs", "link up", "absolute link", "hard link", "pipe"],
)
def test_a_tar_that_reaches_out(tmp_path: Path, cache: Path, members: list[tarfile.TarInfo]):
    archive = tar_of(tmp_path / "evil.tar", *members)
    with pytest.raises(UserError, match=r"evil.tar cannot be unpacked"):
        unpack(archive)
    assert outside(tmp_path, cache) == ["evil.tar"]
    assert list((cache / "datasets" / "hf_transfer-archives").iterdir()) == []


def test_a_link_within_the_archive(tmp_path: Path):
    archive = tar_of(
        tmp_path / "linked.tar", tarfile.TarInfo("cat/0.png"), linked("dog/0.png", "../cat/0.png", tarfile.SYMTYPE)
    )
    assert (unpack(archive) / "dog" / "0.png").read_bytes() == png(0)


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tar.xz", ".tar.bz2"])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_damaged(tmp_path: Path, cache: Path, suffix: str, share: float):
    folder = write_folder(tmp_path / "pets", {"cat": 20})
    archive = pack(folder, tmp_path / f"damaged{suffix}")
    content = bytearray(archive.read_bytes())
    # 600 bytes of a plain tar always touch a header here; the others have checksums all over.
    start = int(len(content.rstrip(b"\0")) * share) - 600
    content[max(0, start) : start + 600] = b"\xff" * (start + 600 - max(0, start))
    archive.write_bytes(content)
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(archive)
    assert list((cache / "datasets" / "hf_transfer-archives").iterdir()) == []


@pytest.mark.parametrize("lost", [100, 3000])
def test_a_tar_cut_short(tmp_path: Path, lost: int):
    archive = pack(write_folder(tmp_path / "pets", {"cat": 20}), tmp_path / "pets.tar")
    archive.write_bytes(archive.read_bytes().rstrip(b"\0")[:-lost])
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(archive)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz"])
@pytest.mark.parametrize("content", [b"", b"hello", lzma.compress(b"hello")], ids=["empty", "text", "xz of text"])
def test_not_an_archive_at_all(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(tmp_path / name)


def test_a_zip_with_a_password(tmp_path: Path):
    archive = pack(write_folder(tmp_path / "pets", {"cat": 1}), tmp_path / "pets.zip")
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := content.find(signature, start + 1)) >= 0:
            content[start + offset] |= 1
    archive.write_bytes(content)
    with pytest.raises(UserError, match="cannot be unpacked: .*password"):
        unpack(archive)


_UNPACK_AT_ONCE = """
import sys, time, datasets
from pathlib import Path
from hf_transfer.data.archives import unpack
datasets.config.HF_DATASETS_CACHE = Path(sys.argv[2])
go = Path(sys.argv[3])
Path(sys.argv[4]).touch()
while not go.exists():
    time.sleep(0.001)
print(len(list(unpack(Path(sys.argv[1])).rglob("*.png"))))
"""


def test_two_processes_at_once(tmp_path: Path):
    archive = pack(write_folder(tmp_path / "pets", {"cat": 150, "dog": 150}), tmp_path / "pets.tar.gz")
    cache, go = tmp_path / "shared", tmp_path / "go"
    ready = [tmp_path / f"ready{index}" for index in range(2)]
    arguments = [sys.executable, "-c", _UNPACK_AT_ONCE, str(archive), str(cache), str(go)]
    processes = [
        subprocess.Popen([*arguments, str(flag)], stdout=subprocess.PIPE, text=True, env=os.environ) for flag in ready
    ]
    while not all(flag.exists() for flag in ready):
        assert all(process.poll() is None for process in processes)
    go.touch()
    assert [process.communicate()[0].strip() for process in processes] == ["300", "300"]
    assert len(list((cache / "hf_transfer-archives").iterdir())) == 1


def test_another_process_was_quicker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    archive = pack(write_folder(tmp_path / "pets", {"cat": 2}), tmp_path / "pets.tar")
    replace = os.replace

    def slow(source: Path, target: Path) -> None:
        write_folder(Path(target), {"pets/cat": 2})
        replace(source, target)

    monkeypatch.setattr(os, "replace", slow)
    folder = unpack(archive)
    assert len(list(folder.rglob("*.png"))) == 2
    assert list(folder.parent.iterdir()) == [folder]
