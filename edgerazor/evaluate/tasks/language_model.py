"""One model of lm-evaluation-harness for all runtimes: Transformers, llama.cpp, ONNX Runtime, a third party's."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jinja2 import TemplateError
from numpy.typing import NDArray
from transformers.utils.chat_template_utils import render_jinja_template

from edgerazor.core.contracts import Runtime
from edgerazor.errors import ExportError
from edgerazor.evaluate.tasks.installed import TemplateLM, get_rolling_token_windows, make_disjoint_window
from edgerazor.evaluate.tasks.request_cache import RequestCache
from edgerazor.inference.continuation import Continuation
from edgerazor.inference.sampling import Sampling

Answer = tuple[float, bool]
Progress = Callable[[int, int], None]


class RuntimeLM(TemplateLM):
    """A loaded runtime that scores and continues texts; what choices of one question begin with is read once.

    Args:
        runtime: is restarted at will.
        cache: answers that need not be computed again.
        progress: is called with how many requests are done, and how many there are.
        thinking: what the chat template is told as `enable_thinking`; None says nothing.
        batch_size: contexts that are read side by side, where the engine can.
    """

    def __init__(
        self,
        runtime: Runtime,
        cache: RequestCache,
        progress: Progress | None = None,
        thinking: bool | None = None,
        batch_size: int = 1,
    ):
        super().__init__()
        self._runtime, self._cache, self._progress = runtime, cache, progress or (lambda done, total: None)
        self._batch_size = batch_size
        self._template_arguments = {} if thinking is None else {"enable_thinking": thinking}
        self._read: list[int] = []
        self._last: NDArray[np.float32] | None = None

    @property
    def max_length(self) -> int:
        """Tokens of the context."""
        return self._runtime.context_length

    @property
    def eot_token_id(self) -> int:
        """A token that ends a text."""
        token = self._token("eos_token")
        return min(self._runtime.stop_ids, default=0) if token is None else token

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has nothing before it: the beginning of a text, or the end of another."""
        token = self._token("bos_token")
        return self.eot_token_id if token is None else token

    def _token(self, name: str) -> int | None:
        text = self._runtime.special_tokens.get(name)
        ids = self._runtime.encode_rendered(text) if text else []
        return ids[0] if len(ids) == 1 else None

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids; special tokens are put around the text unless told otherwise, or if it begins with one already."""
        special = self._runtime.special_tokens
        prefix = special.get("bos_token") or special.get("eos_token")
        if add_special_tokens is False or (add_special_tokens is None and prefix and string.startswith(prefix)):
            return self._runtime.encode_rendered(string)
        return self._runtime.encode_text(string)

    @property
    def tokenizer_name(self) -> str:
        """Names the prompts that the harness might keep."""
        return self._runtime.name

    def check_template(self) -> None:
        """Raise ExportError if the model has no chat template."""
        if not self._runtime.chat_template:
            raise ExportError(
                f"{self._runtime.name}: has no chat template; leave --apply-chat-template out, or take "
                "edgerazor_base in the place of edgerazor_instruct"
            )

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Text of a dialogue; with `add_generation_prompt` up to where an answer begins, else the last turn left open.

        As the harness's class for Transformers does, a template that refuses a system message is given none.

        Raises:
            ExportError: the template refuses the rest, too.
        """
        try:
            return self._render(chat_history, add_generation_prompt)
        except TemplateError:
            pass
        try:
            return self._render([turn for turn in chat_history if turn["role"] != "system"], add_generation_prompt)
        except TemplateError as error:
            raise ExportError(f"{self._runtime.name}: its chat template refuses the question: {error}") from error

    def _render(self, turns: list[dict[str, str]], prompt: bool) -> str:
        texts, _ = render_jinja_template(
            [turns],
            chat_template=self._runtime.chat_template,
            add_generation_prompt=prompt,
            continue_final_message=not prompt,
            **{**self._runtime.special_tokens, **self._template_arguments},
        )
        return str(texts[0])

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> list[Answer]:
        """As `TemplateLM.loglikelihood`, without a bar of its own."""
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = True, **_: Any
    ) -> list[Answer]:
        """Sum of log probabilities, in nats, of each continuation, and whether greedy search would write it."""
        answers: dict[int, Answer] = {}
        waiting: dict[tuple[int, ...], list[int]] = {}
        parts = [self._fit(context, continuation) for _text, context, continuation in requests]
        for index, (_text, *request) in enumerate(requests):
            known = self._cache.get("loglikelihood", *request)
            if known is None:
                waiting.setdefault(tuple(parts[index][0]), []).append(index)
            else:
                answers[index] = float(known[0]), bool(known[1])
        for batch in self._batches(waiting):
            for index, answer in self._score(batch, parts):
                answers[index] = answer
                self._cache.put(answer, "loglikelihood", *requests[index][1:])
                self._progress(len(answers), len(requests))
        self._progress(len(requests), len(requests))
        return [answers[index] for index in range(len(requests))]

    def _batches(self, waiting: dict[tuple[int, ...], list[int]]) -> Iterator[list[tuple[tuple[int, ...], list[int]]]]:
        """Contexts with the requests that go on from each: as they come one by one, or the longest first, many at once.

        So the time that is left is thought too long rather than too short, and memory runs out at once or never.
        """
        contexts = list(waiting)
        if self._batch_size > 1:
            contexts.sort(key=len, reverse=True)
        for start in range(0, len(contexts), self._batch_size):
            yield [(context, waiting[context]) for context in contexts[start : start + self._batch_size]]

    def _score(
        self, batch: list[tuple[tuple[int, ...], list[int]]], parts: list[tuple[list[int], list[int]]]
    ) -> Iterator[tuple[int, Answer]]:
        indices = [(number, index) for number, (_, here) in enumerate(batch) for index in here]
        found = None
        if self._batch_size > 1:
            rests = [(number, parts[index][1][:-1]) for number, index in indices]
            found = self._runtime.score_side_by_side([context for context, _ in batch], rests)
        if found is None:
            for _, index in indices:
                context, continuation = parts[index]
                yield index, _rate(self._logits_behind(context, continuation[:-1]), continuation)
            return
        last, following = found
        for (number, index), logits in zip(indices, following, strict=True):
            yield index, _rate(np.concatenate([last[number : number + 1], logits]), parts[index][1])

    def _fit(self, context: list[int], continuation: list[int]) -> tuple[list[int], list[int]]:
        """What does not fit the context is cut off at its beginning, as lm-evaluation-harness does."""
        most = self.max_length
        if len(continuation) > most:
            raise ExportError(
                f"{self._runtime.name}: a choice of {len(continuation)} tokens does not fit a context of {most}"
            )
        whole = (context + continuation)[-(most + 1) :]
        return whole[: -len(continuation)], continuation

    def _logits_behind(self, context: list[int], rest: list[int]) -> NDArray[np.float32]:
        """Logits `[1 + len(rest), vocabulary]` of the context's last token and of every token of the rest."""
        runtime = self._runtime
        if self._read != context or self._last is None or not runtime.rewind(len(context)):
            runtime.restart()
            self._last = None
            self._last, self._read = runtime.feed(context), list(context)
        return np.concatenate([self._last, runtime.feed(rest, every=True)]) if rest else self._last

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> list[float]:
        """Log probability, in nats, of each whole text; long ones by windows that lm-evaluation-harness lays."""
        sums = []
        for request in requests:
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0], add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            parts = [(None, *make_disjoint_window(window)) for window in windows]
            sums.append(sum(value for value, _ in self._loglikelihood_tokens(parts)))
        return sums

    def generate_until(self, requests: Any, disable_tqdm: bool = True) -> list[str]:
        """Greedy continuations up to one of the texts that end them, at most `max_gen_toks` tokens.

        Raises:
            ExportError: sampling is asked for.
        """
        texts = []
        for done, request in enumerate(requests, 1):
            context, settings = request.args
            if settings.get("do_sample"):
                raise ExportError(f"{self._runtime.name}: tasks are answered by the likeliest tokens; do_sample is not")
            ends, most = settings.get("until") or [], int(settings.get("max_gen_toks", 256))
            stops = [ends] if isinstance(ends, str) else list(ends)
            ids = self.tok_encode(context)
            known = self._cache.get("generate_until", ids, stops, most)
            if known is None:
                known = self._write(ids, stops, most)
                self._cache.put(known, "generate_until", ids, stops, most)
            texts.append(str(known))
            self._progress(done, len(requests))
        return texts

    def _write(self, context: list[int], stops: list[str], most: int) -> str:
        runtime, ids, text = self._runtime, list[int](), ""
        self._last = None
        runtime.restart()
        most = min(most, runtime.context_length - 1)
        kept = context[most - runtime.context_length :]
        for token in Continuation(runtime.feed, kept, Sampling(), stop_ids=runtime.stop_ids, most=most):
            ids.append(token)
            text = runtime.decode(ids)
            if any(stop in text for stop in stops):
                break
        return min((text.split(stop)[0] for stop in stops if stop), key=len, default=text)


def _rate(logits: NDArray[np.float32], continuation: list[int]) -> Answer:
    values = logits.astype(np.float64)
    values -= values.max(-1, keepdims=True)
    values -= np.log(np.exp(values).sum(-1, keepdims=True))
    chosen = values[np.arange(len(continuation)), continuation]
    return float(chosen.sum()), bool((values.argmax(-1) == continuation).all())
