"""The routes in this process, with an inspection that a test can hold up."""

import asyncio
import errno
from pathlib import Path
from tempfile import SpooledTemporaryFile
from threading import Event, Semaphore

import httpx
import numpy as np
import pytest

from dbp_mae.inspection.images import ImageError, encode_png
from dbp_mae.inspection.segmenter import Segmenter
from serving import inspector
from serving.api import create_app
from serving.inspector import Inspector


class HeldUp(Inspector):
    """Inspects nothing until it is let go."""

    def __init__(self) -> None:
        self.begun, self.let_go = Semaphore(0), Event()

    def inspect(self, data: bytes, with_mask: bool, with_image: bool) -> dict[str, str]:
        self.begun.release()
        self.let_go.wait(60)
        return {"inspected": data.decode()}


def test_a_request_given_up_keeps_its_place_until_its_inspection_ends() -> None:
    app, held_up = create_app(max_body=100), HeldUp()
    app.state.inspector = held_up

    async def scenario() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            first, second, third = (
                asyncio.create_task(client.post("/segment", content=name)) for name in "123"
            )
            assert await asyncio.to_thread(held_up.begun.acquire, timeout=60)
            first.cancel()
            second.cancel()
            assert not await asyncio.to_thread(held_up.begun.acquire, timeout=0.2)
            held_up.let_go.set()
            assert (await third).json() == {"inspected": "3"}
            assert held_up.begun.acquire(blocking=False)  # the third's
            assert not held_up.begun.acquire(blocking=False)  # the second's was dropped

    asyncio.run(scenario())


def test_a_form_needs_no_room_on_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    class Weighing(Inspector):
        def __init__(self) -> None:
            pass

        def inspect(self, data: bytes, with_mask: bool, with_image: bool) -> dict[str, int]:
            return {"bytes": len(data)}

    def full(file: SpooledTemporaryFile) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SpooledTemporaryFile, "rollover", full)
    app = create_app(max_body=4_000_000)
    app.state.inspector = Weighing()

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.post("/segment", files={"image": bytes(3_000_000)})

    assert asyncio.run(send()).json() == {"bytes": 3_000_000}


def test_an_image_too_large_for_the_classes_is_refused(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Segmenter.load(tiny_model)
    monkeypatch.setattr(inspector, "PROBABILITIES", 4 * (2 + 2) * 100)
    inspect = Inspector(segmenter, log=None).inspect
    inspect(encode_png(np.zeros((10, 10), np.uint8)), with_mask=False, with_image=False)
    with pytest.raises(ImageError, match="at most 100 in all"):
        inspect(encode_png(np.zeros((10, 11), np.uint8)), with_mask=False, with_image=False)
