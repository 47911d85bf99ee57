"""Pictures from folders, Parquet and saved datasets; what is drawn follows from seed, epoch and picture."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from PIL import Image

from edgerazor.core.contracts import ImageFacts
from edgerazor.data import Data
from edgerazor.data.images import Classes, ImageCollator, ImageRows, load_images
from edgerazor.errors import CheckpointError, DataError
from edgerazor.models.image_processor import check_processor
from edgerazor.schemas.data import DataSection
from tests.data.pictures import encoded, processor, save_folder

CLASSES = Classes({"left": 0, "right": 1})


def load(path: Path, classes: Classes = CLASSES, *, channels: int = 1, **section: Any) -> Data:
    content = {"task": "image_classification", "sources": [{"path": str(path)}], **section}
    data = DataSection.model_validate(content)
    return load_images(data, processor(channels=channels), classes=classes, channels=channels)


def values(rows: Any) -> dict[bytes, int]:
    """The class of each picture, by its numbers."""
    return {row["pixel_values"].numpy().tobytes(): row["label"] for row in (rows[i] for i in range(len(rows)))}


def test_a_folder_a_parquet_file_and_a_saved_dataset_give_the_same_rows(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "folder")
    content = [(encoded(kind, seed), kind) for kind in (0, 1) for seed in range(6)]
    columns = {"image": [{"bytes": data, "path": None} for data, _ in content], "label": [kind for _, kind in content]}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    Dataset.from_dict(columns).save_to_disk(tmp_path / "saved")
    names = {"picture": [data for data, _ in content], "kind": [("left", "right")[kind] for _, kind in content]}
    (tmp_path / "hub").mkdir()
    pq.write_table(pa.table(names), tmp_path / "hub" / "train-00000-of-00001.parquet")
    expected = values(load(folder).train)
    assert sorted(expected.values()) == [0] * 6 + [1] * 6
    assert values(load(tmp_path / "train.parquet").train) == expected
    assert values(load(tmp_path / "saved").train) == expected
    columns_of = {"image": "picture", "label": "kind"}
    assert values(load(tmp_path / "hub", images=columns_of).train) == expected
    split = [{"path": str(tmp_path / "hub"), "split": "train"}]
    assert values(load(tmp_path, sources=split, images=columns_of).train) == expected


def test_pictures_without_a_class_are_rows_without_a_label(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for seed in range(3):
        (tmp_path / "pictures" / f"{seed}.png").write_bytes(encoded(0, seed))
    pq.write_table(pa.table({"image": [encoded(0, 0)], "label": pa.array([None], pa.int64())}), tmp_path / "a.parquet")
    for path in (tmp_path / "pictures", tmp_path / "a.parquet"):
        loaded = load(path)
        assert set(loaded.train.labels) == {-100} and loaded.usage.labels == 0


def test_a_share_or_sources_of_their_own_are_held_out(tmp_path: Path) -> None:
    folder, other = save_folder(tmp_path / "train"), save_folder(tmp_path / "test", 2)
    shared = load(folder, held_out=0.25, seed=3)
    assert (len(shared.train), len(shared.held_out)) == (9, 3)  # type: ignore[arg-type]
    assert not set(values(shared.train)) & set(values(shared.held_out))
    assert values(load(folder, held_out=0.25, seed=3).held_out) == values(shared.held_out)
    own = load(folder, held_out=[str(other)])
    assert (len(own.train), len(own.held_out)) == (12, 4)  # type: ignore[arg-type]
    assert own.held_out.augmentation is None  # type: ignore[union-attr]


def drawn(folder: Path, epoch: int, **images: Any) -> list[torch.Tensor]:
    rows: Any = load(folder, images=images, seed=5).train
    rows.set_epoch(epoch)
    return [rows[i]["pixel_values"] for i in range(len(rows))]


@pytest.mark.parametrize("images", [{"flip": True}, {"crop": 0.3}, {"crop": 0.5, "flip": True}])
def test_what_is_drawn_follows_from_seed_epoch_and_picture(tmp_path: Path, images: dict[str, Any]) -> None:
    folder = save_folder(tmp_path / "folder")
    plain, first = drawn(folder, 0), drawn(folder, 0, **images)
    again, second = drawn(folder, 0, **images), drawn(folder, 1, **images)
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    for other in (plain, second):
        same = [torch.equal(*pair) for pair in zip(first, other, strict=True)]
        assert not all(same)
    if images == {"flip": True}:
        pairs = list(zip(first, plain, strict=True))
        assert all(torch.equal(*pair) or torch.equal(pair[0].flip(-1), pair[1]) for pair in pairs)


def test_a_mixture_has_two_labels_with_their_shares(tmp_path: Path) -> None:
    rows: Any = load(save_folder(tmp_path / "folder")).train
    some = [rows[i] for i in range(4)]
    apart, mixed = ImageCollator(5)(some), ImageCollator(5, mixup=0.4)(some)
    assert apart["labels"].shape == (4, 1) and bool((apart["label_shares"] == 1).all())
    assert apart["token_mask"].shape == (4, 5) and apart["prediction_rows"].tolist() == [0, 1, 2, 3]
    share = mixed["label_shares"][0, 0]
    assert 0 < share < 1 and torch.allclose(mixed["label_shares"].sum(-1), torch.ones(4))
    assert torch.equal(mixed["labels"][:, 1], apart["labels"][:, 0].roll(1))
    values_apart = apart["pixel_values"]
    torch.testing.assert_close(mixed["pixel_values"], share * values_apart + (1 - share) * values_apart.roll(1, 0))
    again = ImageCollator(5, mixup=0.4)(some)
    assert torch.equal(again["pixel_values"], mixed["pixel_values"])
    blank = ImageCollator(5)([*some[:2], ImageCollator(5).blank(some[2])])
    assert blank["prediction_rows"].tolist() == [0, 1] and not bool(blank["token_mask"][2].any())


def test_grey_and_coloured_models_are_given_what_they_read(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "folder")
    assert load(folder).train[0]["pixel_values"].shape == (1, 8, 8)
    assert load(folder, channels=3).train[0]["pixel_values"].shape == (3, 8, 8)


def test_grey_of_16_bits_is_read_by_its_upper_bytes(tmp_path: Path) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    _save(tmp_path / "wide" / "left" / "a.png", grey.astype(np.uint16) * 256 + 7)
    _save(tmp_path / "narrow" / "left" / "a.png", grey)
    for channels in (1, 3):
        wide, narrow = (load(tmp_path / name, channels=channels).train[0] for name in ("wide", "narrow"))
        assert torch.equal(wide["pixel_values"], narrow["pixel_values"])


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 300), (300, 2)])
def test_a_picture_of_any_proportions_is_cropped_and_flipped(tmp_path: Path, width: int, height: int) -> None:
    _save(tmp_path / "pictures" / "left" / "a.png", np.full((height, width), 7, np.uint8))
    rows = load(tmp_path / "pictures", images={"crop": 0.3, "flip": True}).train
    assert rows[0]["pixel_values"].shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("image", "side", "message"),
    [
        (
            ImageFacts(1, 16, 16),
            8,
            r"model: preprocessor_config.json makes 1 × 8 × 8 numbers; the model takes 1 × 16 × 16 ",
        ),
        (
            ImageFacts(3, 8, 8),
            8,
            r"model: preprocessor_config.json: mean must have 3 .*; the model takes 3 × 8 × 8 numbers",
        ),
        (ImageFacts(2, 8, 8), 8, "model: takes pictures of 2 channels; expected 1 .grey. or 3 .coloured."),
    ],
)
def test_the_processor_of_another_model_is_refused(image: ImageFacts, side: int, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        check_processor(processor(side), image, "model")
    check_processor(processor(side), ImageFacts(1, 16, 24, any_size=True), "model")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "missing", "no such file or folder"),
        (lambda root: _write(root / "a.txt", b"x"), "expected a Parquet file, or a folder of pictures"),
        (lambda root: save_folder(root / "two", 1, ("left", "rigth")), "class 'rigth' .*did you mean 'right'"),
        (lambda root: save_folder(root / "nine", 1, ("left", "9")), "class 9; the model tells 0 to 1 apart"),
        (
            lambda root: _write(root / "no" / "left" / "a.png", b"no").parents[1],
            "a.png: is no picture",
        ),
        (lambda root: _table(root / "a.parquet", {"picture": [b"x"]}), "no column 'image'.*set data.images.image"),
        (lambda root: _table(root / "a.parquet", {"image": [b"x"]}), "row 1: image: is no picture"),
        (lambda root: _table(root / "a.parquet", {"image": [1]}), "row 1: image: holds no picture"),
        (lambda root: _table(root / "a.parquet", {"image": [encoded(0, 0)], "label": [0.5]}), "label is 0.5"),
        (
            lambda root: _save(root / "left" / "a.tif", np.zeros((8, 8), np.float32)).parents[1],
            "a.tif: holds numbers of 32",
        ),
        (lambda root: _with_folder(save_folder(root / "two", 1), "up"), "two: no pictures .* in the class folder up;"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(make(tmp_path))


def test_a_table_names_pictures_inside_its_folder(tmp_path: Path) -> None:
    _write(tmp_path / "data" / "files" / "a.png", encoded(0, 0))
    table = _table(tmp_path / "data" / "a.parquet", {"image": ["files/a.png"], "label": [0]})
    assert len(load(table).train) == 1
    saved = tmp_path / "saved"
    Dataset.from_dict({"image": [{"bytes": None, "path": "files/a.png"}], "label": [0]}).save_to_disk(saved)
    _write(saved / "files" / "a.png", encoded(0, 0))
    assert len(load(saved).train) == 1


@pytest.mark.parametrize("name", ["../secret.png", "{}/secret.png", "files/../../secret.png", "..", ""])
def test_a_picture_outside_the_folder_of_its_table_is_refused(tmp_path: Path, name: str) -> None:
    _write(tmp_path / "secret.png", encoded(0, 0))
    _write(tmp_path / "data" / "files" / "a.png", encoded(0, 0))
    for column in ([name.format(tmp_path)], [{"bytes": None, "path": name.format(tmp_path)}]):
        table = _table(tmp_path / "data" / "a.parquet", {"image": column, "label": [0]})
        with pytest.raises(DataError, match=r"row 1: image: .*(is not the name of a file in this folder|no picture)"):
            load(table)


def test_bad_pictures_can_be_left_out(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "folder", 2)
    _write(folder / "left" / "broken.png", b"no picture")
    _write(folder / "middle" / "a.png", encoded(0, 0))
    loaded = load(folder, on_bad_row="skip")
    assert len(loaded.train) == 4 and loaded.bad_rows == 2


def test_a_held_out_picture_that_ends_early_is_named_at_once(tmp_path: Path) -> None:
    folder, other = save_folder(tmp_path / "train", 1), save_folder(tmp_path / "test", 2)
    for path in (folder, other):
        data = (path / "left" / "00.png").read_bytes()
        _write(path / "left" / "00.png", data[: len(data) // 2])
    with pytest.raises(DataError, match=r"test/left/00\.png"):
        load(folder, held_out=[str(other)])
    loaded = load(folder, held_out=[str(other)], on_bad_row="skip")
    assert len(loaded.held_out) == 3 and loaded.bad_rows == 1  # type: ignore[arg-type]
    (other / "left" / "01.png").unlink()
    shutil.rmtree(other / "right")
    with pytest.raises(DataError, match=r"data\.held_out: no picture can be used"):
        load(folder, held_out=[str(other)], on_bad_row="skip")


def test_a_picture_that_ends_early_is_named_when_it_is_decoded(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "folder", 1)
    data = (folder / "left" / "00.png").read_bytes()
    _write(folder / "left" / "00.png", data[: len(data) // 2])
    rows: Any = load(folder).train
    assert isinstance(rows, ImageRows)
    with pytest.raises(DataError, match=r"left/00\.png"):
        for index in range(len(rows)):
            rows[index]


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _save(path: Path, numbers: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numbers).save(path)
    return path


def _with_folder(root: Path, name: str) -> Path:
    (root / name).mkdir()
    return root


def _table(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path
