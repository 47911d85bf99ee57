"""GGUF files run by llama.cpp through the common interface and the command line."""

from pathlib import Path

import numpy as np
import pytest
from gguf_cases import byte_level_tokenizer, make, pack_case
from transformers import AutoTokenizer

from edgerazor.checkpoint import open_checkpoint
from edgerazor.core.registry import Registry
from edgerazor.errors import EdgeRazorError, ExportError, PluginError
from edgerazor.inference.generate import GenerationSettings, generate_text
from edgerazor.inference.open_runtime import open_runtime
from tests.commands import fail, succeed

TEMPLATE = "{% for message in messages %}<tool>{{ message.content }}\n{% endfor %}answer:"


@pytest.fixture(scope="module")
def exported(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("model")
    checkpoint = pack_case(folder, registry, tokenizer=byte_level_tokenizer(template=TEMPLATE), num_hidden_layers=1)
    make(registry, folder / "a.gguf").export(open_checkpoint(checkpoint), folder / "a.gguf")
    return folder / "a.gguf", checkpoint


def test_without_the_engine_the_error_names_the_extra(
    exported: tuple[Path, Path], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    for name in [name for name in sys.modules if name.startswith("edgerazor.plugins.exporters.gguf")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(PluginError, match=r"pip install '\.\[llamacpp\]'"):
        open_runtime(exported[0], registry=registry)


@pytest.mark.llamacpp
class TestWithLlamaCpp:
    @pytest.fixture(autouse=True)
    def _engine(self) -> None:
        pytest.importorskip("llama_cpp")

    def test_pieces_give_the_logits_of_the_whole(self, exported: tuple[Path, Path], registry: Registry) -> None:
        runtime = open_runtime(exported[0], registry=registry)
        ids = np.random.default_rng(0).integers(0, 250, 100).tolist()
        whole = runtime.feed(ids, every=True)
        assert whole.shape == (100, runtime.vocabulary_size)
        runtime.restart()
        parts = [runtime.feed(ids[:30]), runtime.feed(ids[30:99]), runtime.feed(ids[99:], every=True)]
        # Rounding to int8 makes logits jump where sums differ in the last bit.
        for part, row in zip(parts, (29, 98, 99), strict=True):
            assert np.linalg.norm(part[0] - whole[row]) < 0.05 * np.linalg.norm(whole[row])
        with pytest.raises(ExportError, match="129 tokens do not fit a context of 128"):
            runtime.feed(ids[:29])
        runtime.close()

    def test_prompts_and_messages_become_the_tokens_of_the_tokenizer(
        self, exported: tuple[Path, Path], registry: Registry
    ) -> None:
        path, checkpoint = exported
        runtime, tokenizer = open_runtime(path, registry=registry), AutoTokenizer.from_pretrained(checkpoint)
        message = [{"role": "user", "content": "the 12 ins"}]
        text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        assert runtime.encode("the 12 ins") == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert runtime.encode("the 12 ins", chat=False) == tokenizer("the 12 ins")["input_ids"]
        assert runtime.decode(tokenizer("the 12 ins")["input_ids"]) == "the 12 ins"
        assert tokenizer.eos_token_id in runtime.stop_ids
        assert runtime.recipe["quantization"]["weights"]
        runtime.close()

    def test_a_token_of_many_bytes_is_whole(self, registry: Registry, tmp_path: Path) -> None:
        words, long = byte_level_tokenizer(), "=" * 100
        words.add_tokens([long])
        checkpoint = pack_case(tmp_path, registry, tokenizer=words, num_hidden_layers=1)
        make(registry, tmp_path / "a.gguf").export(open_checkpoint(checkpoint), tmp_path / "a.gguf")
        runtime, ids = open_runtime(tmp_path / "a.gguf", registry=registry), words(f"the{long}in")["input_ids"]
        assert len(ids) < 10 and runtime.decode(ids) == f"the{long}in"
        runtime.close()

    def test_commands(self, exported: tuple[Path, Path], registry: Registry, tmp_path: Path) -> None:
        path, checkpoint = exported
        text = succeed("generate", path, "--prompt", "the fox", "--max-new-tokens", 8, "--no-chat")
        runtime = open_runtime(path, registry=registry)
        assert text == generate_text(runtime, "the fox", GenerationSettings(8, chat=False)) + "\n"
        runtime.close()
        (tmp_path / "held.txt").write_text("the fox and the dog in the house\n" * 30)
        options = ["--data", tmp_path / "held.txt", "--set", "data.sequence_length=64"]
        options += ["--teacher", checkpoint.parent / "float"]
        figures, same = (succeed("evaluate", model, *options) for model in (path, checkpoint))
        rows = [dict(line.strip().split(": ") for line in printed.splitlines()) for printed in (figures, same)]
        assert rows[0]["tokens"] == rows[1]["tokens"]
        assert float(rows[0]["loss"]) == pytest.approx(float(rows[1]["loss"]), rel=0.01)

    def test_a_damaged_file(self, exported: tuple[Path, Path], tmp_path: Path, registry: Registry) -> None:
        content = exported[0].read_bytes()
        (tmp_path / "cut.gguf").write_bytes(content[: len(content) // 2])
        with pytest.raises(EdgeRazorError, match=r"cut.gguf: .*(cannot load it|cut off)"):
            open_runtime(tmp_path / "cut.gguf", registry=registry)
        assert "cut.gguf" in fail("generate", tmp_path / "cut.gguf", "--prompt", "x")
