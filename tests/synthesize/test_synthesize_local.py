"""A Transformers model as the teacher: the same answers one by one, in batches, and by a plain loop."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from synthesize_cases import (
    TEMPLATE,
    compute_in_float64,
    dialogue,
    dialogues,
    prompts_of,
    save_teacher,
    settings,
    user,
    write_lines,
)
from transformers import AutoTokenizer, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from edgerazor.core.discovery import load_plugins
from edgerazor.errors import CheckpointError
from edgerazor.models.source import ModelSource
from edgerazor.schemas.synthesis import SynthesisSettings
from edgerazor.synthesize.drafts import FinishedDialogue, Prompt, Refusal
from edgerazor.synthesize.local import LocalWriter, load_local_writer
from edgerazor.synthesize.sampling import RowSampling, TokenSampler, numbers_of

pytestmark = pytest.mark.slow

REGISTRY = load_plugins(external=False)
Write = Callable[..., list[FinishedDialogue | Refusal]]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def write(teacher: Path, tmp_path: Path) -> Write:
    """`write(rows, batch_size, **settings)`: outcomes in the order of the rows."""

    def run(
        rows: list[Any], batch_size: int = 4, model: Path = teacher, **values: Any
    ) -> list[FinishedDialogue | Refusal]:
        chosen = settings(model=str(model), **values)
        prompts = prompts_of(write_lines(tmp_path / "in.jsonl", rows), settings())
        outcomes = list(
            load_local_writer(chosen, registry=REGISTRY, batch_size=batch_size, use_cpu=True).write(prompts)
        )
        assert len(outcomes) == len(prompts)
        places = [prompt.id for prompt in prompts]
        return sorted(outcomes, key=lambda outcome: places.index(outcome.prompt.id))

    return run


def texts(outcomes: list[FinishedDialogue | Refusal]) -> list[list[str]]:
    """The assistant's turns of each dialogue."""
    assert all(isinstance(outcome, FinishedDialogue) for outcome in outcomes), outcomes
    return [
        [message["content"] for message in outcome.messages if message["role"] == "assistant"]
        for outcome in outcomes
        if isinstance(outcome, FinishedDialogue)
    ]


def test_greedy_turns_are_those_of_a_plain_loop(teacher: Path, write: Write) -> None:
    """Every turn follows the teacher's own earlier turns, thinking off; one token at a time, without padding."""
    model: Any = ModelSource(str(teacher), registry=REGISTRY).load(torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    rows = dialogues(4)
    for row, written in zip(rows, write(rows, temperature=0.0), strict=True):
        text = ""
        assert isinstance(written, FinishedDialogue)
        for message, answered in zip(row["messages"], written.messages, strict=True):
            if message["role"] == "user":
                assert answered == message
                text += f"<user>{message['content']}\n"
                continue
            ids = tokenizer(f"{text}<assistant>(quiet)")["input_ids"]
            new: list[int] = []
            while len(new) < 12:
                token = int(model(torch.tensor([ids + new])).logits[0, -1].argmax())
                if token == tokenizer.eos_token_id:
                    break
                new.append(token)
            assert answered["content"] == tokenizer.decode(new, skip_special_tokens=True)
            text += f"<assistant>{answered['content']}\n"
        assert set(written.finish_reasons) <= {"stop", "length"}


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_does_not_depend_on_its_batch(temperature: float, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    compute_in_float64(monkeypatch)
    rows = dialogues(5)
    alone = write(rows, 1, temperature=temperature)
    for batch_size in (3, 16):
        assert texts(write(rows, batch_size, temperature=temperature)) == texts(alone)
    assert texts(write(rows[::-1], 3, temperature=temperature))[::-1] == texts(alone)


def test_finish_reasons_say_who_ended_an_answer(tmp_path: Path, write: Write) -> None:
    """A model whose every token is the end answers nothing, and says that it stopped."""
    silent = save_teacher(tmp_path / "silent")
    model: Any = ModelSource(str(silent), registry=REGISTRY).load()
    with torch.no_grad():
        model.model.norm.weight.zero_()
    model.generation_config.eos_token_id = 0  # with equal logits the likeliest token is the first
    model.save_pretrained(silent)
    (outcome,) = write([dialogue(1)], model=silent, temperature=0.0)
    assert isinstance(outcome, FinishedDialogue) and outcome.finish_reasons == ["stop"]
    assert outcome.messages[-1]["content"] == ""
    (outcome,) = write([dialogue(1)], max_new_tokens=1, temperature=0.0)
    assert isinstance(outcome, FinishedDialogue) and outcome.finish_reasons == ["length"]


def test_the_models_own_sampling_defaults_do_not_count(teacher: Path, tmp_path: Path, write: Write) -> None:
    other = save_teacher(tmp_path / "other")
    model: Any = ModelSource(str(other), registry=REGISTRY).load()
    model.generation_config.update(do_sample=True, repetition_penalty=5.0, top_k=1, suppress_tokens=list(range(100)))
    model.save_pretrained(other)
    rows = dialogues(3)
    assert texts(write(rows, model=other)) == texts(write(rows, model=teacher))


def test_without_a_template_contents_follow_each_other(tmp_path: Path, write: Write) -> None:
    base = save_teacher(tmp_path / "base", template=None)
    plain = save_teacher(tmp_path / "plain", template="{% for m in messages %}{{ m.content }}{% endfor %}")
    rows = dialogues(3)
    assert texts(write(rows, model=base)) == texts(write(rows, model=plain))


def test_what_the_template_refuses_or_does_not_fit_is_refused(tmp_path: Path, write: Write) -> None:
    strict = "{% if messages|length > 2 %}{{ raise_exception('one question only') }}{% endif %}" + TEMPLATE
    model = save_teacher(tmp_path / "strict", template=strict)
    long = {"messages": [user("word " * 400)]}
    short, deep, wide = write([dialogue(1), dialogue(2, turns=3), long], model=model, max_new_tokens=100)
    assert isinstance(short, FinishedDialogue)
    assert isinstance(deep, Refusal) and "the chat template refuses this dialogue: one question only" in deep.reason
    assert isinstance(wide, Refusal) and "100 new ones do not fit a context of 512 positions" in wide.reason


def test_tools_are_in_the_prompt_of_the_teacher(tmp_path: Path, write: Write) -> None:
    naming = "{% if tools %}{{ raise_exception(tools[0].function.name) }}{% endif %}" + TEMPLATE
    model = save_teacher(tmp_path / "naming", template=naming)
    with_tools = {**dialogue(0), "tools": [{"type": "function", "function": {"name": "search"}}]}
    refused, answered = write([with_tools, dialogue(1)], model=model)
    assert isinstance(refused, Refusal) and refused.reason.endswith("refuses this dialogue: search")
    assert isinstance(answered, FinishedDialogue)


def test_a_thought_that_the_template_opens_is_no_answer(tmp_path: Path, write: Write) -> None:
    model = save_teacher(tmp_path / "thinks", template=TEMPLATE + "{% if add_generation_prompt %}<think>\n{% endif %}")
    (outcome,) = write([dialogue(1)], model=model)
    assert isinstance(outcome, Refusal) and "still thinking when the tokens ran out" in outcome.reason


@pytest.mark.slow
def test_stop_drops_what_is_under_way(teacher: Path, tmp_path: Path) -> None:
    prompts = prompts_of(write_lines(tmp_path / "in.jsonl", [dialogue(number) for number in range(9)]), settings())
    writer = load_local_writer(
        settings(model=str(teacher), max_new_tokens=100), registry=REGISTRY, batch_size=2, use_cpu=True
    )
    outcomes = []
    for outcome in writer.write(prompts):
        outcomes.append(outcome)
        if len(outcomes) == 3:
            writer.stop()
    # The batch of the third was finished before.
    assert [outcome.prompt.id for outcome in outcomes] == [prompt.id for prompt in prompts[:4]]


def test_a_quantized_model_is_no_teacher(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent: no usable config\.json: there is no"):
        load_local_writer(settings(model=str(tmp_path / "absent")), registry=REGISTRY, batch_size=1)
    config = (teacher / "config.json").read_text().rstrip()
    (tmp_path / "config.json").write_text(config[:-1] + ', "quantization_config": {"quant_method": "edgerazor"}}')
    AutoTokenizer.from_pretrained(teacher).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="is already quantized"):
        load_local_writer(settings(model=str(tmp_path)), registry=REGISTRY, batch_size=1)


@pytest.mark.parametrize("chosen", [{"top_p": 1.0, "top_k": 0}, {"top_k": 3}, {"top_p": 0.6, "top_k": 0}])
def test_tokens_are_drawn_with_their_probabilities(chosen: dict[str, Any]) -> None:
    """4 000 rows of one distribution: the share of each token lies within five standard errors of its probability."""
    values: SynthesisSettings = settings(max_new_tokens=1, **chosen)
    scores, count = torch.tensor([[2.0, 1.0, -torch.inf, 0.5, 0.0, -1.0]]), 4000
    sampling = RowSampling(numbers_of(range(count), 1), torch.full((count,), 0.7), 5, TokenSampler(values))
    drawn = sampling(torch.zeros(count, 5, dtype=torch.long), scores.expand(count, -1))
    assert bool(((drawn == 0).sum(-1) == 1).all()) and bool((drawn.isneginf().sum(-1) == 5).all())
    expected = TemperatureLogitsWarper(0.7)(None, scores)
    if values.top_k:
        expected = TopKLogitsWarper(values.top_k)(None, expected)
    if values.top_p < 1:
        expected = TopPLogitsWarper(values.top_p)(None, expected)
    shares = Counter(drawn.argmax(-1).tolist())
    for token, probability in enumerate(expected.softmax(-1)[0].tolist()):
        error = (probability * (1 - probability) / count) ** 0.5
        assert abs(shares[token] / count - probability) <= 5 * error, token


def test_each_step_has_a_number_of_its_own() -> None:
    chosen = TokenSampler(settings(temperature=1.0, top_p=1.0, top_k=0))
    sampling = RowSampling(numbers_of([7, 7, 8], 12), torch.ones(3), 2, chosen)
    steps = [sampling(torch.zeros(3, 2 + step, dtype=torch.long), torch.zeros(3, 50)).argmax(-1) for step in range(12)]
    rows = torch.stack(steps, dim=1).tolist()
    assert rows[0] == rows[1] != rows[2] and len(set(rows[0])) > 6


def test_prompts_are_read_as_they_are_needed(teacher: Path, tmp_path: Path) -> None:
    prompts = prompts_of(write_lines(tmp_path / "in.jsonl", [dialogue(number) for number in range(20)]), settings())
    taken: list[Prompt] = []

    def follow() -> Any:
        for prompt in prompts:
            taken.append(prompt)
            yield prompt

    outcomes = LocalWriter.write(
        load_local_writer(settings(model=str(teacher)), registry=REGISTRY, batch_size=4, use_cpu=True), follow()
    )
    next(outcomes)
    assert len(taken) == 4


def test_rows_of_one_batch_have_temperatures_of_their_own() -> None:
    """Hot rows are nearly uniform, cold and greedy ones take the likeliest token."""
    sampler, count = TokenSampler(settings(top_p=1.0, top_k=0)), 300
    scores = torch.tensor([0.0, 1.0, 2.0]).expand(3 * count, -1)
    temperatures = torch.tensor([0.0, 0.01, 100.0]).repeat_interleave(count)
    tokens = sampler.choose(scores, numbers_of(range(3 * count), 1)[:, 0], temperatures).reshape(3, count)
    assert bool((tokens[:2] == 2).all())
    assert all(60 < shares < 140 for shares in tokens[2].bincount(minlength=3).tolist())
