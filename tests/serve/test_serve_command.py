"""What is wrong on the command line is one message and exit code 2; models have names."""

import socket
from pathlib import Path

import pytest

from edgerazor.core.registry import Registry
from edgerazor.errors import EdgeRazorError
from edgerazor.inference.named_paths import named_paths
from edgerazor.serve.models import loaded_models
from edgerazor.serve.server import listen
from edgerazor.serve.settings import ServeSettings
from tests.commands import fail
from tests.runs import save_model


def test_models_are_named_after_their_files(tmp_path: Path) -> None:
    (tmp_path / "small.v2").mkdir()
    (tmp_path / "a=b").mkdir()
    given = [str(tmp_path / "small.v2"), str(tmp_path / "model.gguf"), "other=x/model.gguf", str(tmp_path / "a=b")]
    assert list(named_paths(given)) == ["small.v2", "model", "other", "a=b"]
    with pytest.raises(
        EdgeRazorError, match="another model is named 'model' too; give names of your own: NAME=b/model"
    ):
        named_paths(["a/model.gguf", "b/model.gguf"])


def test_a_16_bit_folder_is_served_with_its_size(tmp_path: Path, registry: Registry) -> None:
    folder = save_model(tmp_path / "teacher")
    with loaded_models({"t": folder}, registry=registry, queue=1) as table:
        told = table.find(None).to_dict()
    assert told["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    assert told["id"] == "t" and told["context_length"] == 128 and told["chat"] is False


def test_an_address_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            EdgeRazorError, match=f"127.0.0.1:{port}: cannot listen there: Address already in use; give another --host"
        ):
            listen(ServeSettings(port=port))
    with pytest.raises(EdgeRazorError, match="cannot listen there: Cannot assign requested address"):
        listen(ServeSettings(host="192.0.2.1"))


def test_what_is_no_model_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    for path, message in ((tmp_path / "notes.txt", "no exporter knows"), (tmp_path / "absent", "no such folder")):
        assert message in fail("serve", path)
