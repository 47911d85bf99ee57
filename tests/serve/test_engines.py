"""One server, three engines: every kind of client holds the same conversation with each of them."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import openai
import pytest

from edgerazor.checkpoint import open_checkpoint, pack_model
from edgerazor.core.registry import Registry
from edgerazor.inference.generate import GenerationSettings, generate_text
from edgerazor.inference.open_runtime import open_runtime
from edgerazor.schemas.recipe import load_recipe
from tests.browser import MARKS
from tests.runs import quantization, save_model, tokenizer
from tests.serve.serving import TEMPLATE, Address, serving
from tests.serve.test_other_clients import SDK, run_ai_sdk

MESSAGES = [{"role": "user", "content": "def f1(x):"}]
LENGTH = 12
SETTINGS = {"temperature": 0, "max_tokens": LENGTH}
ENGINES = ["packed", "onnx", pytest.param("gguf", marks=pytest.mark.llamacpp)]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("onnx_operators")]


@pytest.fixture(scope="module")
def models(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A student that chats: packed, and exported to the engines that are installed."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("engines")
    save_model(folder / "model")
    words = tokenizer()
    words.chat_template = TEMPLATE
    words.save_pretrained(folder / "model")
    content = {"model": {"name_or_path": str(folder / "model")}, "quantization": quantization()}
    pack_model(load_recipe(content, registry=registry), registry=registry, output=folder / "packed")
    found = {"packed": folder / "packed"}
    for name, place in (("onnx", "onnx"), ("gguf", "model.gguf")):
        exporter = registry.build(registry.params("exporter", name, path=str(folder / place)))
        exporter.export(open_checkpoint(folder / "packed", registry=registry), folder / place)
        found[name] = folder / place
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        del found["gguf"]
    return found


@pytest.fixture(scope="module")
def expected(models: dict[str, Path], registry: Registry) -> dict[str, str]:
    """What each engine writes without a server."""
    found = {}
    for name, path in models.items():
        runtime = open_runtime(path, registry=registry)
        found[name] = generate_text(runtime, MESSAGES[0]["content"], GenerationSettings(LENGTH, chat=True))
        runtime.close()
    return found


@pytest.fixture(scope="module")
def address(models: dict[str, Path], registry: Registry) -> Iterator[Address]:
    with ExitStack() as stack:
        runtimes = [open_runtime(path, registry=registry) for path in models.values()]
        for runtime in runtimes:
            stack.callback(runtime.close)
        yield stack.enter_context(serving(*runtimes, names=tuple(models)))


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, models: dict[str, Path]) -> str:
    if request.param not in models:
        pytest.skip("needs the engine")
    return str(request.param)


def test_the_client_of_openai_blocking_and_streaming(address: Address, engine: str, expected: dict[str, str]) -> None:
    ask = openai.OpenAI(base_url=address.base_url, api_key="any", max_retries=0).chat.completions.create
    whole = ask(model=engine, messages=MESSAGES, **SETTINGS)
    assert whole.choices[0].message.content == expected[engine]
    stream = ask(model=engine, messages=MESSAGES, stream=True, **SETTINGS)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == expected[engine]
    # The next turn goes on from the answer.
    messages = [*MESSAGES, {"role": "assistant", "content": expected[engine]}, {"role": "user", "content": "return"}]
    assert ask(model=engine, messages=messages, **SETTINGS).usage.prompt_tokens > whole.usage.prompt_tokens


def test_async_clients_talk_to_all_engines_at_once(address: Address, expected: dict[str, str]) -> None:
    async def main() -> list[str]:
        async with openai.AsyncOpenAI(base_url=address.base_url, api_key="any", max_retries=0) as client:

            async def ask(name: str) -> str:
                stream = await client.chat.completions.create(model=name, messages=MESSAGES, stream=True, **SETTINGS)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*(ask(name) for name in [*expected] * 3))

    assert asyncio.run(main()) == [*expected.values()] * 3


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_gets_frames_that_are_right_byte_by_byte(address: Address, engine: str, expected: dict[str, str]) -> None:
    body = json.dumps({"model": engine, "messages": MESSAGES, "stream": True, **SETTINGS})
    command = ["curl", "-sS", "--no-buffer", f"{address.base_url}/chat/completions", "--data", body]
    answer = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    chunks = [json.loads(frame.removeprefix("data: ")) for frame in answer.decode().split("\n\n")[:-2]]
    pieces = [chunk["choices"][0]["delta"]["content"] for chunk in chunks[1:-1]]
    assert "".join(pieces) == expected[engine] and len(pieces) > 1
    head = f'{{"id":"{chunks[0]["id"]}","object":"chat.completion.chunk","created":1700000000,"model":"{engine}",'
    deltas = [
        ('{"role":"assistant","content":""}', "null"),
        *((f'{{"content":{json.dumps(piece, ensure_ascii=False)}}}', "null") for piece in pieces),
        ("{}", '"length"'),
    ]
    frames = [f'{head}"choices":[{{"index":0,"delta":{delta},"finish_reason":{end}}}]}}' for delta, end in deltas]
    assert answer == "".join(f"data: {frame}\n\n" for frame in [*frames, "[DONE]"]).encode()


@pytest.mark.skipif(
    shutil.which("node") is None or not (SDK / "@ai-sdk/openai-compatible").is_dir(),
    reason="needs node and the AI SDK: make ai-sdk",
)
def test_the_ai_sdk(address: Address, expected: dict[str, str], tmp_path: Path) -> None:
    found = run_ai_sdk(tmp_path, "ai_sdk_engines.mjs", address.base_url, MESSAGES[0]["content"], *expected)
    assert found == {name: [text, text] for name, text in expected.items()}


class TestInABrowser:
    """The playground with real engines side by side."""

    pytestmark = MARKS

    def test_two_engines_answer_side_by_side(self, address: Address, models: dict[str, Path]) -> None:
        pytest.importorskip("selenium", reason="needs the extra browser")
        from selenium.webdriver.support.ui import Select

        from tests.browser import chromium
        from tests.serve.test_playground import Page

        with chromium() as driver:
            page = Page(driver, address)
            for other in [name for name in models if name != "packed"]:
                page.find("new-chat").click()
                Select(page.find("model-first")).select_by_value("packed")
                Select(page.find("model-second")).select_by_value(other)
                page.ask("def f1(x):")
                assert [heading.split()[0] for heading in page.texts(".answer h3")][-2:] == ["packed", other]
                assert len(page.texts(".measured")) % 2 == 0 and all(page.texts(".measured"))
            assert not any(page.texts(".fault")) and not driver.get_log("browser")
