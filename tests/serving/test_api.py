"""The routes in this process, with an inspection that a test can hold up."""

import asyncio
import errno
import gc
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import SpooledTemporaryFile
from threading import Event, Semaphore

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette

from dbp_mae.inspection.images import MAX_PIXELS, ImageError, encode_png
from dbp_mae.inspection.segmenter import GivenUp, Segmenter
from serving import inspector
from serving.api import create_app
from serving.inspector import Inspector


class HeldUp(Inspector):
    """Inspects nothing until it is let go, or the inspection is given up."""

    def __init__(self) -> None:
        self.begun, self.let_go, self.left = Semaphore(0), Event(), Semaphore(0)

    def inspect(
        self, data: bytes, with_mask: bool, with_image: bool, given_up: Callable[[], bool]
    ) -> dict[str, str]:
        self.begun.release()
        while not self.let_go.wait(0.01):
            if given_up():
                self.left.release()
                raise GivenUp
        return {"inspected": data.decode()}


def held_up_app() -> tuple[Starlette, HeldUp]:
    """Return the application with an inspection that is held up."""
    app, held_up = create_app(max_body=2_000_000), HeldUp()
    app.state.inspector = held_up
    return app, held_up


def client_of(app: Starlette) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")


async def begun(held_up: HeldUp) -> bool:
    """Wait for an inspection to begin."""
    return await asyncio.to_thread(held_up.begun.acquire, timeout=60)


def test_a_request_given_up_ends_its_inspection_or_never_begins_it() -> None:
    app, held_up = held_up_app()

    async def scenario() -> None:
        async with client_of(app) as client:
            first, second, third = (
                asyncio.create_task(client.post("/segment", content=name)) for name in "123"
            )
            assert await begun(held_up)
            second.cancel()
            first.cancel()
            assert await asyncio.to_thread(held_up.left.acquire, timeout=60)
            held_up.let_go.set()
            assert (await third).json() == {"inspected": "3"}
            assert held_up.begun.acquire(blocking=False)  # the third's
            assert not held_up.begun.acquire(blocking=False)  # the second's was dropped

    asyncio.run(scenario())


def test_a_request_given_up_in_the_queue_lets_go_of_its_image() -> None:
    app, held_up = held_up_app()

    async def scenario() -> None:
        async with client_of(app) as client:
            first = asyncio.create_task(client.post("/segment", content="1"))
            assert await begun(held_up)
            tracemalloc.start()
            queued = [
                asyncio.create_task(client.post("/segment", content=bytes(1_000_000)))
                for _ in range(5)
            ]
            while app.state.one_at_a_time._work_queue.qsize() < len(queued):
                await asyncio.sleep(0)
            for task in queued:
                task.cancel()
            await asyncio.gather(*queued, return_exceptions=True)
            queued.clear()
            del task  # what is left is the server's
            async with asyncio.timeout(10):
                while gc.collect() or tracemalloc.get_traced_memory()[0] > 1_000_000:
                    await asyncio.sleep(0)
            tracemalloc.stop()
            held_up.let_go.set()
            assert (await first).json() == {"inspected": "1"}

    asyncio.run(scenario())


def test_an_inspection_whose_client_has_gone_is_given_up() -> None:
    app, held_up = held_up_app()
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/segment",
        "query_string": b"",
        "headers": [],
    }
    messages = [{"type": "http.request", "body": b"1"}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, object]:
        if len(messages) == 1:
            assert await begun(held_up)
        return messages.pop(0)

    async def send(message: object) -> None:
        pass

    asyncio.run(app(scope, receive, send))
    assert held_up.left.acquire(timeout=60)


def test_a_wrong_method_is_told() -> None:
    async def scenario() -> None:
        async with client_of(create_app(max_body=1)) as client:
            wrong = await client.get("/segment")
            assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
            assert wrong.json() == {"error": "/segment takes POST, not GET."}
            wrong = await client.post("/model")
            assert wrong.json() == {"error": "/model takes GET or HEAD, not POST."}

    asyncio.run(scenario())


def test_a_form_needs_no_room_on_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    class Weighing(Inspector):
        def __init__(self) -> None:
            pass

        def inspect(
            self, data: bytes, with_mask: bool, with_image: bool, given_up: Callable[[], bool]
        ) -> dict[str, int]:
            return {"bytes": len(data)}

    def full(file: SpooledTemporaryFile) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SpooledTemporaryFile, "rollover", full)
    app = create_app(max_body=4_000_000)
    app.state.inspector = Weighing()

    async def send() -> httpx.Response:
        async with client_of(app) as client:
            return await client.post("/segment", files={"image": bytes(3_000_000)})

    assert asyncio.run(send()).json() == {"bytes": 3_000_000}


def test_an_image_too_large_for_the_classes_is_refused(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Segmenter.load(tiny_model)
    monkeypatch.setattr(inspector, "MAX_PROBABILITY_BYTES", 4 * (2 + 2) * 100)
    inspect = partial(Inspector(segmenter, MAX_PIXELS, log=None).inspect, given_up=lambda: False)
    inspect(encode_png(np.zeros((10, 10), np.uint8)), with_mask=False, with_image=False)
    with pytest.raises(ImageError, match="at most 100 in all"):
        inspect(encode_png(np.zeros((10, 11), np.uint8)), with_mask=False, with_image=False)
