"""A checkpoint is written whole or not at all."""

import resource

import pytest

from edgerazor.checkpoint import load_model, open_checkpoint, verify_checkpoint
from edgerazor.checkpoint.folder import replaced_folder
from edgerazor.errors import CheckpointError
from tests.packed_cases import edit_json, logits, make_student


@pytest.fixture
def student(build_model, registry, tmp_path):
    return make_student(build_model, registry, tmp_path)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_replaces_the_one_before(student, tmp_path):
    folder = tmp_path / "runs" / "packed"
    first = student.write(folder)
    student.model.model.layers[0].mlp.up_proj.weight.data.neg_()
    second = student.write(folder)
    assert first.digest != second.digest == open_checkpoint(folder).digest
    assert names(tmp_path / "runs") == ["packed"]
    assert verify_checkpoint(folder).ok


def test_an_empty_folder_is_used(student, tmp_path):
    (tmp_path / "packed").mkdir()
    student.write(tmp_path / "packed")
    assert verify_checkpoint(tmp_path / "packed").ok


def test_foreign_files_are_never_removed(student, tmp_path):
    folder = tmp_path / "packed"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"packed: holds files .*thesis\.txt"):
        student.write(folder)
    assert names(folder) == ["thesis.txt"]
    with pytest.raises(CheckpointError, match=r"thesis\.txt: is a file"):
        student.write(folder / "thesis.txt")


def test_a_failure_leaves_the_checkpoint_before_it(student, tmp_path):
    folder = tmp_path / "packed"
    digest = student.write(folder).digest

    class Broken:
        def save_pretrained(self, folder):
            raise RuntimeError("no space left")

    student.model.model.layers[0].mlp.up_proj.weight.data.neg_()
    with pytest.raises(CheckpointError, match="tokenizer cannot be written: no space left"):
        student.write(folder, tokenizer=Broken())
    assert open_checkpoint(folder).digest == digest and verify_checkpoint(folder).ok
    assert names(tmp_path) == ["float", "packed"]


def test_an_interruption_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), replaced_folder(tmp_path / "packed") as temporary:
        (temporary / "half").write_text("x")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_a_full_disk_is_said(student, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(CheckpointError, match="packed: cannot be written: "):
            student.write(tmp_path / "packed")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["float"]


def test_an_output_that_cannot_be_written_is_said(student, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match=r"packed: cannot be written: .*file is a file, not a folder"):
        student.write(tmp_path / "file" / "packed")
    with pytest.raises(CheckpointError, match=r"deep: cannot be written: .*file is a file, not a folder"):
        student.write(tmp_path / "file" / "packed" / "deep")
    assert (tmp_path / "file").read_text() == "x"


def test_the_folder_may_move(student, tmp_path):
    student.write(tmp_path / "packed")
    (tmp_path / "packed").rename(tmp_path / "moved")
    assert logits(load_model(tmp_path / "moved")).equal(logits(student.model))


def test_a_manifest_that_points_outside_is_refused(student, tmp_path):
    student.write(tmp_path / "packed")
    edit_json(
        tmp_path / "packed" / "edgerazor.json", lambda content: content["files"].update({"../float/config.json": {}})
    )
    with pytest.raises(CheckpointError, match=r"edgerazor\.json: files"):
        open_checkpoint(tmp_path / "packed")
