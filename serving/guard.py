"""A limit on the bytes of a request, enforced while they arrive: BentoML has none."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CLOSE = {"Connection": "close"}
"""Without it the server would go on reading the body that it has refused."""


class BodyLimit:
    """ASGI middleware that refuses bodies of more than `limit` bytes with status 413."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit
        self._sentence = f"The request has more than the {limit // 1024**2} MiB accepted."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting its bytes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if int(Headers(scope=scope).get("content-length", 0)) > self._limit:
            refusal = JSONResponse({"error": self._sentence}, 413, CLOSE)
            await refusal(scope, receive, send)
            return
        received = 0

        async def counting_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:  # a client need not announce the length
                raise HTTPException(413, self._sentence, CLOSE)
            return message

        await self._app(scope, counting_receive, send)
