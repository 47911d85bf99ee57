"""Videos through a tiny thinker of Qwen2.5-Omni: its numbers, its answers, and what is counted of them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen2_5OmniForConditionalGeneration, Qwen2_5OmniThinkerForConditionalGeneration

from edgerazor.checkpoint import load_model, pack_model
from edgerazor.core.contracts import Runtime, VideoMessage
from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError
from edgerazor.evaluate.videos.catalog import VIDEO_TASKS
from edgerazor.inference.open_runtime import open_runtime
from edgerazor.schemas.recipe import load_recipe
from tests.adapters.omni_cases import omni_config, processor
from tests.commands import fail, succeed
from tests.evaluate.omni import draw_frames, save_frames, save_thinker
from tests.runs import save_model

pytestmark = pytest.mark.slow
PIXELS = 1024
QUESTION = {"question": "Where is the bar?", "options": ["left", "right", "nowhere", "above"]}


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_thinker(tmp_path_factory.mktemp("omni") / "thinker")


@pytest.fixture(scope="module")
def packed(thinker: Path, registry: Registry) -> Path:
    weights = [{"match": "*.layers.*.mlp.*", "quantizer": {"name": "int", "bits": 4, "group_size": 32}}]
    content = {"model": {"name_or_path": str(thinker)}, "quantization": {"weights": weights}}
    pack_model(load_recipe(content, registry=registry), registry=registry, output=thinker.parent / "packed")
    return thinker.parent / "packed"


def inputs_of(text: str, frames: list[np.ndarray], seconds: float) -> dict[str, torch.Tensor]:
    """What the model's own processor gives, of pictures: the k-th frame of a patch is the k-th slice of its picture."""
    own = processor()
    size = {"shortest_edge": PIXELS, "longest_edge": PIXELS}
    made = own.image_processor(images=frames, size=size, return_tensors="pt")
    _, height, width = made["image_grid_thw"][0].tolist()
    pictures = made["pixel_values"].view(len(frames), height * width, 3, 2, -1)
    pairs = [
        torch.stack([pictures[first, :, :, 0], pictures[first + 1, :, :, 1]], dim=2)
        for first in range(0, len(frames), 2)
    ]
    tokens = "<|VIDEO|>" * (len(pairs) * height * width // 4)
    ids = own.tokenizer(f"<user><|vision_bos|>{tokens}<|vision_eos|>{text}\n<assistant>", return_tensors="pt")
    return {
        "input_ids": ids["input_ids"],
        "attention_mask": ids["attention_mask"],
        "pixel_values_videos": torch.cat(pairs).flatten(1),
        "video_grid_thw": torch.tensor([[len(pairs), height, width]]),
        "video_second_per_grid": torch.tensor([2 * seconds / len(frames)]),
    }


@torch.no_grad()
def direct(model: Any, inputs: Mapping[str, torch.Tensor]) -> np.ndarray:
    return np.asarray(model(**inputs).logits[0, -1].float())


@pytest.fixture(scope="module")
def own_class(thinker: Path) -> Any:
    return Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(thinker, dtype=torch.float32).eval()


@pytest.mark.parametrize("seconds", [3.0, 30.0])
def test_a_video_gives_the_logits_of_transformers_own_class(
    thinker: Path, own_class: Any, registry: Registry, seconds: float
) -> None:
    frames = draw_frames(6)
    runtime = open_runtime(thinker, registry=registry, unquantized=True)
    runtime.check_videos()
    found = runtime.read_video(VideoMessage("Why?", frames, seconds, PIXELS))
    expected = direct(own_class, inputs_of("Why?", frames, seconds))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    turned = runtime.read_video(VideoMessage("Why?", frames[::-1], seconds, PIXELS))
    assert np.abs(turned - found).max() > 1e-3


def test_a_packed_thinker_sees_what_its_own_module_sees(packed: Path, registry: Registry) -> None:
    frames = draw_frames(5)
    found = open_runtime(packed, registry=registry).read_video(VideoMessage("Why?", frames, None, PIXELS))
    # Half a second a frame where nobody says how long it is; the last one stands for the one that lacks in its patch.
    inputs = {**inputs_of("Why?", [*frames, frames[-1]], 3.0), "video_second_per_grid": torch.tensor([1.0])}
    np.testing.assert_allclose(found, direct(load_model(packed, registry=registry), inputs), atol=1e-5)


def test_the_whole_models_folder_is_packed_with_the_files_of_its_processor(registry: Registry, tmp_path: Path) -> None:
    whole, packed = save_thinker(tmp_path / "whole"), tmp_path / "packed"
    Qwen2_5OmniForConditionalGeneration(omni_config()).to(torch.bfloat16).save_pretrained(whole)
    # As the published model has it, where the tokenizer does not find it.
    template = (whole / "chat_template.jinja").read_text(encoding="utf-8")
    (whole / "chat_template.json").write_text(json.dumps({"chat_template": template}), encoding="utf-8")
    (whole / "chat_template.jinja").unlink()
    succeed("pack", whole, "--preset", "4-bit", "--output", packed)
    for folder in (whole, packed):
        runtime = open_runtime(folder, registry=registry, unquantized=True)
        runtime.check_videos()
        assert np.isfinite(runtime.read_video(VideoMessage("Why?", draw_frames(3), None, 512))).all()


def test_a_text_behind_a_video_has_its_own_positions(thinker: Path, registry: Registry) -> None:
    def continued(runtime: Runtime) -> np.ndarray:
        runtime.restart()
        assert runtime.feed([5, 6, 7]).shape == (1, runtime.vocabulary_size)
        return runtime.feed([8])

    runtime = open_runtime(thinker, registry=registry, unquantized=True)
    before = continued(runtime)
    runtime.read_video(VideoMessage("Why?", draw_frames(4), None, PIXELS))
    np.testing.assert_array_equal(continued(runtime), before)


def save_rows(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


PARTS = [("short", "Knowledge"), ("long", "Sports"), ("short", "Sports"), ("short", "Knowledge"), ("long", "Sports")]


@pytest.fixture
def data(tmp_path: Path, own_class: Any) -> Path:
    """Five clips; three of the answers of `video_mme` are the model's own, and all of `mlvu`'s first category."""
    folder = tmp_path / "data"
    tasks: dict[str, list[dict[str, Any]]] = {"video_mme": [], "mlvu": []}
    for number, (duration, category) in enumerate(PARTS):
        frames = draw_frames(4, seed=number)
        save_frames(folder / f"clips/{number}", frames)
        row = {**QUESTION, "video": f"clips/{number}", "seconds": 4, "category": category, "answer": "A"}
        for name, lines in tasks.items():
            logits = direct(own_class, inputs_of(VIDEO_TASKS[name].ask(row), frames, 4.0))
            liked = max("ABCD", key=lambda letter: logits[processor().tokenizer.convert_tokens_to_ids(letter)])
            right = number < 3 if name == "video_mme" else category == "Knowledge"
            answer = liked if right else "ABCD"[("ABCD".index(liked) + 1) % 4]
            added = {"duration": duration} if name == "video_mme" else {}
            lines.append({**row, "answer": answer, **added})
    for name, lines in tasks.items():
        save_rows(folder, name, lines)
    return folder


def evaluated(model: Path, data: Path, *options: object) -> dict[str, Any]:
    output = data / "results.json"
    succeed("evaluate", model, "--data", data, "--max-pixels", PIXELS, "--output", output, *options)
    return json.loads(output.read_text(encoding="utf-8"))


def test_answers_are_counted_by_duration_and_category_beside_a_teacher(thinker: Path, packed: Path, data: Path) -> None:
    options = ("--tasks", "video_mme,mlvu", "--teacher", thinker, "--cache", data / "answers.sqlite")
    found = evaluated(packed, data, *options)
    shares = {task: values["acc,none"] for task, values in found["teacher"]["results"].items()}
    assert shares == {
        "video_mme": 3 / 5,
        "video_mme/short": 2 / 3,
        "video_mme/long": 1 / 2,
        "video_mme/Knowledge": 1 / 2,
        "video_mme/Sports": 2 / 3,
        "mlvu": 2 / 5,
        "mlvu/Knowledge": 1.0,
        "mlvu/Sports": 0.0,
    }
    whole = found["teacher"]["results"]["mlvu"]
    assert whole["acc_mean_of_parts,none"] == 0.5 and whole["acc_mean_of_parts_stderr,none"] == 0.0
    assert whole["acc_stderr,none"] == pytest.approx((0.4 * 0.6 / 4) ** 0.5)
    assert {"video_mme,acc", "mlvu/Sports,acc"} <= found["comparison"].keys()
    assert found["config"]["frames"] == 32 and found["config"]["max_pixels"] == PIXELS

    # Answers are kept: a picture that can no longer be read, of the same size and time, is not looked at again.
    for picture in data.rglob("*.png"):
        stat = picture.stat()
        picture.write_bytes(bytes(stat.st_size))
        os.utime(picture, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert evaluated(packed, data, *options)["results"] == found["results"]


def test_frames_and_rows_can_be_limited(thinker: Path, data: Path) -> None:
    shown = succeed(
        "evaluate", thinker, "--data", data, "--tasks", "video_mme", "--frames", 2, "--limit", 2, "--no-cache",
        "--max-pixels", PIXELS,
    )  # fmt: skip
    assert "video_mme/short" in shown and "the first 2 rows" in shown


def test_videos_stand_in_one_table_with_other_tasks(thinker: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="the extra eval is not installed: make tasks")
    data = tmp_path / "data"
    save_frames(data / "clip", draw_frames(2))
    save_rows(data, "video_mme", [ROW, {**ROW, "video": "not looked for, as it is cut off"}])
    save_rows(data, "piqa", [{"question": "Why?", "choices": ["so", "no"], "label": 0}])
    found = evaluated(thinker, data, "--tasks", "piqa,video_mme", "--limit", 1, "--no-cache")
    assert {"video_mme", "piqa"} <= found["results"].keys()
    assert found["n-samples"]["video_mme"] == {"original": 2, "effective": 1}


ROW = {**QUESTION, "answer": "A", "video": "clip", "duration": "short", "category": "Art"}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no options": ({"options": []}, "options: expected a list of two texts or more"),
    "unknown answer": ({"answer": "E"}, "answer: expected the letter of an option, A, B, C, D, got 'E'"),
    "number as answer": ({"answer": 1}, "answer: expected text"),
    "outside": ({"video": "../clip"}, "video: '../clip' is not the name of a file in this folder"),
    "absolute": ({"video": "/clip"}, "'/clip' is not the name of a file in this folder"),
    "missing": ({"video": "clap"}, "there is no such folder of frames, nor such a file; did you mean 'clip'?"),
    "empty": ({"video": "empty"}, "holds no frames; expected pictures (.bmp"),
    "duration": ({"duration": "shrt"}, "duration: got 'shrt'; did you mean 'short'?"),
    "seconds": ({"seconds": 0}, "seconds: expected a number above 0"),
}
READ: dict[str, tuple[dict[str, Any], str]] = {
    "no picture": ({"video": "broken"}, "1.png: is no picture that can be read"),
    "sizes": ({"video": "sizes"}, "frame_1.png is 32x24, the first frame 16x24; expected one size"),
    "too long": ({"question": "why " * 600}, "tokens, the context holds 2048; take fewer frames or pixels"),
    "names the token": ({"question": "<|VIDEO|>?"}, "or the question names <|VIDEO|>"),
}


@pytest.mark.parametrize("fault", [*BAD, *READ])
def test_what_cannot_be_asked_is_refused_by_file_and_row(thinker: Path, tmp_path: Path, fault: str) -> None:
    data = tmp_path / "data"
    save_frames(data / "clip", draw_frames(2))
    (data / "empty").mkdir()
    (data / "broken").mkdir()
    (data / "broken/1.png").write_bytes(b"no picture")
    save_frames(data / "sizes", [draw_frames(1, width=16)[0], *draw_frames(1)])
    changed, message = (BAD | READ)[fault]
    save_rows(data, "video_mme", [ROW, {**ROW, **changed}])
    model = tmp_path / "nothing" if fault in BAD else thinker  # these are found before a model is opened
    options = ("--tasks", "video_mme", "--data", data, "--max-pixels", PIXELS, "--no-cache")
    told = fail("evaluate", model, *options)
    assert f"{data / 'video_mme.jsonl'}:2: " in told and message in told


def test_models_and_options_without_eyes_are_refused_by_fact(tmp_path: Path, thinker: Path) -> None:
    data = tmp_path / "data"
    save_frames(data / "clip", draw_frames(2))
    save_rows(data, "video_mme", [ROW])
    save_model(tmp_path / "text")
    asked = ("--tasks", "video_mme", "--data", data, "--no-cache")
    assert "a model of the type 'qwen3' reads text alone" in fail("evaluate", tmp_path / "text", *asked)
    assert "no examples stand before a video" in fail("evaluate", thinker, *asked, "--num-fewshot", 2)
    assert "--no-chat-template" in fail("evaluate", thinker, *asked, "--no-chat-template")
    assert "--thinking" in fail("evaluate", thinker, *asked, "--no-thinking")
    told = fail("evaluate", thinker, "--tasks", "arc_easy", "--data", data, "--frames", 3)
    assert "--frames is of videos" in told
    assert "did you mean 'video_mme'?" in fail("evaluate", thinker, "--tasks", "video_mm", "--data", data)


def test_a_folder_without_an_image_processor_is_refused(thinker: Path, registry: Registry, tmp_path: Path) -> None:
    for file in thinker.iterdir():
        if file.name != "preprocessor_config.json":
            (tmp_path / file.name).symlink_to(file)
    runtime = open_runtime(tmp_path, registry=registry, unquantized=True)
    with pytest.raises(ExportError, match=r"no usable image processor.*copy preprocessor_config\.json"):
        runtime.check_videos()
