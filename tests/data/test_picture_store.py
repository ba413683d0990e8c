"""A store gives back what was written, or says that it cannot."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from hf_transfer.cache_folder import SEAL
from hf_transfer.data.picture_store import INDEX, ROWS, DamagedStore, PictureStore, StoreTooLarge, write_store

ARRAYS = [
    np.random.default_rng(number).integers(0, 256, (3 + number, 9 - number, 3), dtype=np.uint8) for number in range(6)
]
NO_LIMIT = 10**9


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_store(tmp_path / "store", iter(ARRAYS), "uint8", {"note": "kept"}, NO_LIMIT)
    return tmp_path / "store"


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_rows_come_back(folder: Path):
    store = PictureStore(folder)
    assert len(store) == len(ARRAYS)
    assert store.num_bytes == sum(array.nbytes for array in ARRAYS)
    assert store.seal["facts"] == {"note": "kept"}
    for number, array in enumerate(ARRAYS):
        found = store.row(number)
        assert found is not None
        assert found.dtype == np.uint8
        assert np.array_equal(found, array)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["store"]


def test_floats_come_back_bit_for_bit(tmp_path: Path):
    arrays = [np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32), np.full((3, 1, 1), -0.0, np.float32)]
    store = write_store(tmp_path / "store", iter(arrays), "float32", {}, NO_LIMIT)
    for number, array in enumerate(arrays):
        found = store.row(number)
        assert found is not None
        assert found.tobytes() == array.tobytes()
        assert found.shape == array.shape


def test_a_store_travels_without_its_bytes(tmp_path: Path):
    arrays = [np.full((200, 200, 3), number, np.uint8) for number in range(8)]
    store = write_store(tmp_path / "store", iter(arrays), "uint8", {}, NO_LIMIT)
    packed = pickle.dumps(store)
    assert len(packed) < 5000 < store.num_bytes
    assert np.array_equal(pickle.loads(packed).row(7), arrays[7])


def test_every_flipped_bit_is_noticed(folder: Path):
    end = 0
    for number, array in enumerate(ARRAYS):
        place = end + number % array.nbytes
        end += array.nbytes
        flip(folder / ROWS, place)
        store = PictureStore(folder)
        assert [store.row(other) is None for other in range(len(ARRAYS))] == [
            other == number for other in range(len(ARRAYS))
        ]
        flip(folder / ROWS, place)


@pytest.mark.parametrize("name", [INDEX, SEAL])
def test_a_changed_index_or_seal_is_no_store(folder: Path, name: str):
    size = (folder / name).stat().st_size
    for place in range(0, size - 1, 7):
        flip(folder / name, place)
        with pytest.raises(DamagedStore):
            PictureStore(folder)
        flip(folder / name, place)
    assert len(PictureStore(folder)) == len(ARRAYS)


@pytest.mark.parametrize("name", [ROWS, INDEX, SEAL])
@pytest.mark.parametrize("missing", ["some", "all"])
def test_what_is_cut_off_is_no_store(folder: Path, name: str, missing: str):
    path = folder / name
    if missing == "all":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size - 2)
    with pytest.raises(DamagedStore):
        PictureStore(folder)
    again = write_store(folder, iter(ARRAYS), "uint8", {}, NO_LIMIT)
    assert np.array_equal(again.row(5), ARRAYS[5])


def test_too_much_leaves_nothing_behind(tmp_path: Path):
    with pytest.raises(StoreTooLarge):
        write_store(tmp_path / "store", iter(ARRAYS), "uint8", {}, sum(array.nbytes for array in ARRAYS) - 1)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full, which behaves like a full disk")
    usual = Path.open

    def open_on_full_disk(path: Path, *args, **kwargs):
        return usual(Path("/dev/full") if path.name == ROWS else path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_on_full_disk)
    many = (np.zeros((100, 100, 3), np.uint8) for _ in range(10))
    with pytest.raises(OSError, match="No space") as caught:
        write_store(tmp_path / "store", many, "uint8", {}, NO_LIMIT)
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_a_killed_build_is_never_read(tmp_path: Path):
    script = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        import numpy as np
        from hf_transfer.data.picture_store import write_store

        def rows():
            for number in range(100):
                if number == 60:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield np.full((64, 64, 3), number, np.uint8)

        write_store(Path({str(tmp_path / "store")!r}), rows(), "uint8", {{}}, 10**9)
    """)
    ended = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).resolve().parents[2], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["store.partial"]
    with pytest.raises(DamagedStore):
        PictureStore(tmp_path / "store")
    write_store(tmp_path / "store", iter(ARRAYS), "uint8", {}, NO_LIMIT)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
