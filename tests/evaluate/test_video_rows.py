"""Which frames are taken, how a question is put, what is counted, and what the public files become."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerazor.errors import DataError
from edgerazor.evaluate.tasks.results import read_results
from edgerazor.evaluate.videos.catalog import VIDEO_TASKS
from edgerazor.evaluate.videos.frames import FrameFolder, find_video, spread
from edgerazor.evaluate.videos.scores import Answer, results_of
from tests.commands import fail, succeed
from tests.evaluate.omni import draw_frames, save_frames

ROW = {"question": "Who falls?", "options": ["a cat", "a dog", "Bo", "nobody"], "answer": "B", "video": "clip"}


@given(total=st.integers(1, 5000), count=st.integers(1, 300))
def test_frames_lie_at_equal_distances_from_the_first_to_the_last(total: int, count: int) -> None:
    found = spread(total, count)
    steps = np.diff(found)
    assert len(found) == min(total, count) and found[0] == 0 and (count == 1 or found[-1] == total - 1)
    assert not len(steps) or (steps.min() >= 1 and steps.max() - steps.min() <= 1)


def test_frames_of_a_folder_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    frames = draw_frames(12)
    save_frames(tmp_path / "clip", frames)  # frame_10 stands before frame_2 in the alphabet
    (tmp_path / "clip/notes.txt").write_text("no picture")
    found, seconds = FrameFolder(tmp_path / "clip", "rows:1", 6.0).take(12)
    assert seconds == 6.0 and all(np.array_equal(a, b) for a, b in zip(found, frames, strict=True))
    few, _ = FrameFolder(tmp_path / "clip", "rows:1", None).take(2)
    assert np.array_equal(few, [frames[0], frames[-1]])


def save_video(path: Path, levels: list[int], *, rate: int = 10) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.gop_size = 4
        for level in levels:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_a_video_file_gives_frames_at_equal_times(tmp_path: Path) -> None:
    levels = list(range(10, 260, 10))
    save_video(tmp_path / "clip.mp4", levels)
    video = find_video(tmp_path, "clip", "rows:1", None)
    frames, seconds = video.take(5)
    assert seconds == pytest.approx(len(levels) / 10) and {frame.shape for frame in frames} == {(48, 64, 3)}
    wanted = [levels[round(index)] for index in np.linspace(0, len(levels) - 1, 5)]
    assert [float(frame.mean()) for frame in frames] == pytest.approx(wanted, abs=6)


def test_a_file_that_is_no_video_is_named_with_its_row(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "clip.mp4").write_bytes(b"no video at all")
    with pytest.raises(DataError, match=r"rows:1: .*clip\.mp4: holds no video that can be read"):
        find_video(tmp_path, "clip.mp4", "rows:1", None).take(2)


def test_questions_are_put_as_the_benchmarks_put_them() -> None:
    assert VIDEO_TASKS["video_mme"].ask(ROW) == (
        "Select the best answer to the following multiple-choice question based on the video. Respond with only the "
        "letter (A, B, C, or D) of the correct option.\nWho falls?\nA. a cat\nB. a dog\nC. Bo\nD. nobody\n"
        "The best answer is:"
    )
    assert VIDEO_TASKS["mlvu"].ask({**ROW, "options": ["a cat", "Bo"]}) == (
        "Question: Who falls?\nOptions:\n(A) a cat\n(B) Bo\nOnly give the best option.\nBest option: ("
    )


def test_shares_have_the_errors_of_their_parts_and_models_are_compared_on_the_same_items() -> None:
    task = VIDEO_TASKS["mlvu"]
    rows = {"mlvu": [{**ROW, "category": category} for category in ("ego", "ego", "count", "count", "count")]}

    def results(letters: str) -> dict[str, Any]:
        answers = {"mlvu": [Answer(letter, letter != "A") for letter in letters]}
        return results_of([task], rows, answers, {"mlvu": [*rows["mlvu"], {**ROW, "category": "ego"}]})

    result = read_results(results("BABBA"), results("BBAAA"), {})
    found = {(row.task, row.metric): row for row in result.rows}
    whole, mean = found["mlvu", "acc"], found["mlvu", "acc_mean_of_parts"]
    assert whole.student.value == 3 / 5 and whole.student.error == pytest.approx(math.sqrt(0.24 / 4))
    assert mean.student.value == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert mean.student.error == pytest.approx(math.hypot(math.sqrt(2 / 9 / 2), math.sqrt(1 / 4 / 1)) / 2)
    assert found["mlvu", "letter_is_likeliest"].student.value == 3 / 5
    assert [key for key, row in found.items() if row.comparison] == [
        ("mlvu", "acc"),
        ("mlvu/count", "acc"),
        ("mlvu/ego", "acc"),
    ]
    assert (whole.comparison.student_only, whole.comparison.teacher_only) == (2, 1)  # type: ignore[union-attr]
    written = json.loads(result.to_json())
    assert written["results"]["mlvu/ego"]["acc,none"] == 0.5
    assert written["n-samples"]["mlvu/ego"] == {"original": 3, "effective": 2}


PUBLIC: dict[str, list[dict[str, Any]]] = {
    "video_mme": [
        {
            "video_id": "001",
            "duration": "short",
            "domain": "Film & Television",
            "sub_category": "Animation",
            "videoID": "fFjv93ACGo8",
            "question_id": "001-1",
            "task_type": "Counting Problem",
            "question": "How many?",
            "options": ["A. One.", "B. Two: A. and B.", "C. 3.", "D. None."],
            "answer": "C",
        }
    ],
    "mlvu": [
        {
            "video": "ego_35.mp4",
            "duration": 408.6,
            "question": "What did I take?",
            "candidates": ["a cup", "a box"],
            "answer": "a box",
            "question_type": "ego",
        },
        {
            "video": "v.mp4",
            "duration": 60,
            "question": "Which sport?",
            "candidates": ["golf", "judo", "chess"],
            "answer": "golf",
            "question_type": "sportsQA",
        },
    ],
}
ROWS: dict[str, list[dict[str, Any]]] = {
    "video_mme": [
        {
            "question": "How many?",
            "options": ["One.", "Two: A. and B.", "3.", "None."],
            "answer": "C",
            "video": "video_mme/fFjv93ACGo8",
            "duration": "short",
            "category": "Film & Television",
        }
    ],
    "mlvu": [
        {
            "question": "What did I take?",
            "options": ["a cup", "a box"],
            "answer": "B",
            "video": "mlvu/3_ego/ego_35.mp4",
            "category": "ego",
            "seconds": 408.6,
        },
        {
            "question": "Which sport?",
            "options": ["golf", "judo", "chess"],
            "answer": "A",
            "video": "mlvu/v.mp4",
            "category": "sportsQA",
            "seconds": 60,
        },
    ],
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_annotations_become_rows(name: str, tmp_path: Path) -> None:
    source = tmp_path / "public.json"
    source.write_text(json.dumps(PUBLIC[name]), encoding="utf-8")
    assert f"{len(ROWS[name])} rows" in succeed("eval-data", source, "--task", name, "--output", tmp_path / "data")
    lines = (tmp_path / f"data/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == ROWS[name]


def test_an_answer_that_is_no_candidate_is_an_error_with_its_row(tmp_path: Path) -> None:
    source = tmp_path / "public.json"
    source.write_text(json.dumps([{**PUBLIC["mlvu"][0], "answer": "a hat"}]), encoding="utf-8")
    told = fail("eval-data", source, "--task", "mlvu", "--output", tmp_path / "data")
    assert f"{source}:" in told and "mlvu: is not as the hub has it, or its answer is not public" in told
    assert "takes no examples" in fail("eval-data", source, "--task", "mlvu", "--output", tmp_path, "--shots")
