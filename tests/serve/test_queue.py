"""How events reach the loop from the thread of a model: several at once, the end without delay."""

import asyncio
import math
import threading
from collections.abc import Iterator

import pytest

from edgerazor.serve.errors import ApiError
from edgerazor.serve.queue import Job


def written(job: Job, *, count: int = 3, fault: ApiError | None = None) -> Iterator[int]:
    yield from range(count)
    if fault is not None:
        raise fault


async def start(job: Job) -> None:
    """Do the work in a thread, to its end."""
    await asyncio.get_running_loop().run_in_executor(None, job.run)


def test_what_gathered_is_taken_at_once_and_then_the_end() -> None:
    async def main() -> None:
        job = Job(written)
        await start(job)
        assert await job.take() == [0, 1, 2]
        assert await job.take(gather=math.inf) == [] == await job.take()

    asyncio.run(main())


def test_an_event_that_is_waited_for_comes_as_soon_as_it_is_there() -> None:
    async def main() -> None:
        more = threading.Event()

        def work(job: Job) -> Iterator[int]:
            yield 1
            assert more.wait(60)
            yield 2

        job = Job(work)
        done = asyncio.ensure_future(start(job))
        assert await job.take() == [1]
        more.set()
        assert await job.take() == [2]
        await done

    asyncio.run(main())


def test_a_whole_answer_is_taken_at_its_end() -> None:
    async def main() -> None:
        job = Job(lambda job: written(job, count=1000))
        done = asyncio.ensure_future(start(job))
        assert await job.take(gather=math.inf) == list(range(1000))
        await done

    asyncio.run(main())


def test_a_fault_comes_after_what_was_written_before_it() -> None:
    async def main() -> None:
        job = Job(lambda job: written(job, fault=ApiError(500, "broken")))
        await start(job)
        assert await job.take(gather=math.inf) == [0, 1, 2]
        with pytest.raises(ApiError, match="broken"):
            await job.take()

    asyncio.run(main())


def test_whoever_gives_up_sees_the_end_at_once() -> None:
    async def main() -> None:
        job = Job(written)
        asyncio.get_running_loop().call_soon(job.end)
        assert await job.take(gather=math.inf) == [] and job.ended

    asyncio.run(main())
