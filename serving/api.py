"""The routes: POST /segment, GET /model and the operators' page.

They are a Starlette application inside the BentoML service, since BentoML's own image parameters
fetch a URL given in place of an image, and wrap the message of an error in a list.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from dbp_mae.inspection.images import ImageError, Reason
from serving.guard import CLOSE, BodyLimit
from serving.inspector import Inspector

PAGE = Path(__file__).with_name("page") / "index.html"
# The page loads nothing from anywhere but this service.
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)
MAX_INSPECTIONS = 8
"""How many requests may wait for their inspection or be sending their image: each holds it in memory."""
STATUS: dict[Reason, int] = {
    "too_large": 413,
    "unsupported": 415,
    "too_small": 422,
    "unreadable": 422,
}


def create_app(max_body: int) -> Starlette:
    """Return the application; `app.state.inspector` must be set before the first request.

    Args:
        max_body: bytes of the largest request.
    """
    app = Starlette(
        routes=[
            Route("/", page),
            Route("/model", model),
            Route("/segment", segment, methods=["POST"]),
        ],
        middleware=[Middleware(BodyLimit, limit=max_body)],
        exception_handlers={
            HTTPException: refuse_request,
            ImageError: refuse_image,
            ClientDisconnect: forget,
            Exception: apologise,
        },
    )
    app.state.max_body = max_body
    app.state.places = asyncio.Semaphore(MAX_INSPECTIONS)
    # An inspection that is given up holds this thread until its batch of tiles has ended.
    app.state.one_at_a_time = ThreadPoolExecutor(1, "inspection")
    return app


async def page(request: Request) -> Response:
    """Serve the operators' page."""
    return FileResponse(PAGE, headers={"Content-Security-Policy": PAGE_POLICY})


async def model(request: Request) -> Response:
    """Answer which model is served."""
    return JSONResponse(_inspector(request).identity())


async def segment(request: Request) -> Response:
    """Inspect the image in the body or in the form field `image`.

    `?mask=true` adds the mask to the answer, `?image=true` the image as the model sees it. An inspection
    that takes too long, or whose client has gone, is given up: others wait for its place.
    """
    with_mask, with_image = _switches(request, "mask", "image")
    places: asyncio.Semaphore = request.app.state.places
    if places.locked():
        raise HTTPException(
            429,
            f"The service is busy with {MAX_INSPECTIONS} requests: send this one again in a moment.",
            {"Retry-After": "1"},
        )
    async with places:
        return await _inspect(request, with_mask, with_image)


async def _inspect(request: Request, with_mask: bool, with_image: bool) -> Response:
    inspector, given_up = _inspector(request), Event()
    held = [await _image_bytes(request)]  # let go of in the queue, where a request given up stays
    inspection = asyncio.get_running_loop().run_in_executor(
        request.app.state.one_at_a_time,
        lambda: inspector.inspect(held.pop(), with_mask, with_image, given_up.is_set),
    )
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((inspection, gone), return_when=asyncio.FIRST_COMPLETED)
        if not inspection.done():
            raise ClientDisconnect
        return JSONResponse(inspection.result())
    finally:
        given_up.set()
        inspection.cancel()
        held.clear()
        gone.cancel()


def _switches(request: Request, *names: str) -> list[bool]:
    if unknown := request.query_params.keys() - set(names):
        known = " and ".join(names)
        raise HTTPException(422, f"The parameter {min(unknown)!r} is unknown: there are {known}.")
    values = {name: request.query_params.get(name, "false") for name in names}
    for name, value in values.items():
        if value not in ("true", "false"):
            raise HTTPException(422, f"The parameter {name} is {value!r}: give true or false.")
    return [value == "true" for value in values.values()]


async def _disconnected(request: Request) -> None:
    """Return when the client of a request whose body was read has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _image_bytes(request: Request) -> bytes:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return await request.body()
    parser = MultiPartParser(request.headers, request.stream(), max_files=1, max_fields=1)
    parser.spool_max_size = request.app.state.max_body  # no file on a disk that may be full
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(422, f"The form cannot be read: {error.message}") from None
    if unknown := form.keys() - {"image"}:
        raise HTTPException(
            422,
            f"The form field {min(unknown)!r} is unknown: there is image, and mask belongs into the "
            "address, as in /segment?mask=true.",
        )
    image = form.get("image")
    if isinstance(image, UploadFile):
        return await image.read()
    raise HTTPException(422, "The form has no file in the field image.")


def _inspector(request: Request) -> Inspector:
    return request.app.state.inspector


async def refuse_request(request: Request, error: Exception) -> Response:
    """Answer a request that does not fit."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    sentence = error.detail
    if error.status_code == 405:
        allowed = " or ".join(sorted(headers["Allow"].split(", ")))
        sentence = f"{request.url.path} takes {allowed}, not {request.method}."
    if "transfer-encoding" in request.headers:
        headers |= CLOSE  # the rest of a body without a stated length may have no end
    return JSONResponse({"error": sentence}, error.status_code, headers)


async def refuse_image(request: Request, error: Exception) -> Response:
    """Answer an image that does not fit."""
    assert isinstance(error, ImageError)
    return JSONResponse({"error": str(error)}, STATUS[error.reason])


async def forget(request: Request, error: Exception) -> Response:
    """Answer nobody: the client has gone."""
    return Response(status_code=400)


async def apologise(request: Request, error: Exception) -> Response:
    """Answer for a fault of ours; the server's log has its trace."""
    return JSONResponse({"error": "The inspection failed: see the log of the service."}, 500)
