"""A text ends at the same tokens, and a message is the same tokens, in Transformers, llama.cpp and ONNX Runtime."""

from pathlib import Path

import pytest
from gguf_cases import byte_level_tokenizer, make, pack_case
from gguf_tokenizers import byte_level
from tokenizers import AddedToken
from transformers import AutoTokenizer, GenerationConfig

from edgerazor.checkpoint import open_checkpoint, pack_model
from edgerazor.core.contracts import Runtime
from edgerazor.core.registry import Registry
from edgerazor.inference.generate import GenerationSettings, generate_text
from edgerazor.inference.open_runtime import open_runtime
from edgerazor.plugins.exporters.gguf.read import open_gguf
from edgerazor.schemas.recipe import load_recipe
from tests.families import family_model

pytestmark = [pytest.mark.llamacpp, pytest.mark.slow]
# With a loop, a function of transformers' own, and special tokens.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message.role not in ['user', 'system'] %}"
    "{{ raise_exception('who?') }}{% endif %}<|im_start|>{{ message.role }}\n{{ message.content | trim }}<|stop|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NAMED = {"default": TEMPLATE, "tool_use": TEMPLATE + "tools"}
PROMPTS = ["How are you?", "  1 + 1 = <|im_start|>\n\n", "สวัสดี 😀"]


@pytest.fixture(scope="module")
def packed(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama that always says `<|stop|>`, which is one of four ends of a text; llama.cpp knows its name not."""
    pytest.importorskip("llama_cpp")
    folder = tmp_path_factory.mktemp("model")
    tokenizer = byte_level("Llama 3, SmolLM3")
    tokenizer.add_tokens([AddedToken(text, special=True) for text in ("<|eom_id|>", "<|quit|>", "<|endoftext|>")])
    tokenizer.chat_template = NAMED
    stop = tokenizer.convert_tokens_to_ids("<|stop|>")
    model = family_model("llama3", vocab_size=1024, attention_bias=True, num_hidden_layers=1, eos_token_id=stop)
    model.model.norm.weight.data.fill_(0.01)
    model.model.layers[-1].mlp.down_proj.weight.data.zero_()
    model.model.layers[-1].self_attn.o_proj.bias.data.fill_(100.0)  # all positions end in one direction
    model.lm_head.weight.data[stop] = 1.0
    others = tokenizer.convert_tokens_to_ids(["<|eom_id|>", "<|quit|>"])
    model.generation_config = GenerationConfig(eos_token_id=[stop, *others])
    model.save_pretrained(folder / "float")
    tokenizer.save_pretrained(folder / "float")
    rules = [{"match": "*", "quantizer": {"name": "int", "bits": 4, "group_size": 32}}]
    section = {"model": {"name_or_path": str(folder / "float")}, "quantization": {"weights": rules}}
    pack_model(load_recipe(section, registry=registry), registry=registry, output=folder / "packed")
    return folder / "packed"


@pytest.fixture(scope="module")
def runtimes(packed: Path, registry: Registry) -> list[Runtime]:
    pytest.importorskip("onnxruntime")
    checkpoint, folder = open_checkpoint(packed, registry=registry), packed.parent
    make(registry, folder / "a.gguf").export(checkpoint, folder / "a.gguf")
    onnx = registry.build(registry.params("exporter", "onnx", path=str(folder / "onnx")))
    onnx.export(checkpoint, folder / "onnx")
    return [open_runtime(path, registry=registry) for path in (packed, folder / "a.gguf", folder / "onnx")]


def test_every_runtime_stops_at_the_end_of_a_turn(runtimes: list[Runtime]) -> None:
    stops = [runtime.stop_ids for runtime in runtimes]
    assert stops[0] == stops[1] == stops[2] and len(stops[0]) == 4
    for runtime in runtimes:
        runtime.restart()
        assert int(runtime.feed(runtime.encode("Hello"))[0].argmax()) in runtime.stop_ids
        assert generate_text(runtime, "Hello", GenerationSettings(max_new_tokens=4)) == ""


@pytest.mark.parametrize("end", ["<|end|>", None])
def test_llama_cpp_adds_no_end_of_its_own(end: str | None, registry: Registry, tmp_path: Path) -> None:
    """`<|im_end|>`, which its programs always stop at, is an ordinary token here."""
    pytest.importorskip("llama_cpp")
    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens([AddedToken("<|im_end|>", normalized=False)])
    tokenizer.eos_token = tokenizer.pad_token = end
    folder, path = (
        pack_case(tmp_path, registry, tokenizer=tokenizer, num_hidden_layers=1, eos_token_id=None),
        tmp_path / "a.gguf",
    )
    result = make(registry, path).export(open_checkpoint(folder, registry=registry), path)
    assert any("stop also at" in note for note in result.details["notes"]) is (end is not None)
    expected = set() if end is None else {tokenizer.convert_tokens_to_ids(end)}
    for opened in (folder, path):
        runtime = open_runtime(opened, registry=registry)
        assert runtime.stop_ids == expected
        runtime.close()


def test_every_runtime_reads_the_same_tokens(runtimes: list[Runtime]) -> None:
    for prompt in PROMPTS:
        for chat in (True, False):
            ids = [runtime.encode(prompt, chat=chat) for runtime in runtimes]
            assert ids[0] == ids[1] == ids[2], (prompt, chat)


def test_cut_characters_are_read_alike(runtimes: list[Runtime]) -> None:
    ids = runtimes[0].encode("😀字", chat=False)
    for start in range(1, len(ids)):
        for end in range(start + 1, len(ids) + 1):
            texts = [runtime.decode(ids[start:end]) for runtime in runtimes]
            assert texts[0] == texts[1] == texts[2], (start, end)


def test_the_file_names_every_end_and_every_template(packed: Path, runtimes: list[Runtime]) -> None:
    metadata = open_gguf(packed.parent / "a.gguf").metadata
    ends = {metadata[f"tokenizer.ggml.{name}_token_id"] for name in ("eos", "eot", "eom")}
    assert set(metadata["edgerazor.stop_token_ids"]) == runtimes[0].stop_ids and ends < runtimes[0].stop_ids
    assert metadata["tokenizer.chat_template"] == TEMPLATE and metadata["tokenizer.chat_templates"] == ["tool_use"]
    assert metadata["tokenizer.chat_template.tool_use"] == NAMED["tool_use"]


def test_a_folder_holds_every_template(packed: Path, runtimes: list[Runtime], registry: Registry) -> None:
    checkpoint, folder = open_checkpoint(packed, registry=registry), packed.parent / "onnx"
    exporter = registry.build(registry.params("exporter", "onnx", path=str(folder)))
    exporter.check_target(folder)
    assert exporter.verify(folder, checkpoint).different == ()
    further = folder / "additional_chat_templates" / "tool_use.jinja"
    assert AutoTokenizer.from_pretrained(folder).chat_template == NAMED
    further.write_text("other")
    assert exporter.verify(folder, checkpoint).different == ("additional_chat_templates/tool_use.jinja",)
    further.write_text(NAMED["tool_use"])
