"""The real process, started as a user starts it: `bentoml serve` in the repository's root."""

import base64
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from hostile_images import HOSTILE, RGB16, png16
from service_process import COMMAND, ROOT, environment, served

from dbp_mae.inspection.drift import STATISTICS, image_statistics
from dbp_mae.inspection.images import decode_image, decode_samples, encode_png
from dbp_mae.inspection.segmenter import Segmenter
from serving.held_model import VARIABLE

REQUEST_WITHOUT_BODY = (
    b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
)
STATUS = {"ok": 200, "too_large": 413, "unsupported": 415, "too_small": 422, "unreadable": 422}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the service logs its inspections."""
    return tmp_path_factory.mktemp("log") / "inspections.jsonl"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the server keeps its files and its output."""
    return tmp_path_factory.mktemp("bentoml")


@pytest.fixture(scope="module")
def client(tiny_model: Path, log: Path, folder: Path) -> Iterator[httpx.Client]:
    """Return a client of the running service."""
    variables = {
        "DBP_MAE_MAX_BODY_MB": "1",
        "DBP_MAE_MAX_MEGAPIXELS": "20",
        "DBP_MAE_INSPECTION_LOG": str(log),
    }
    with served(folder, tiny_model, **variables) as client:
        yield client


@pytest.fixture(scope="module")
def part() -> bytes:
    """Return an image with a wire and a spot of epoxy, larger than a tile."""
    image = np.random.default_rng(0).integers(20, 60, (150, 220), dtype=np.uint8)
    image[20:130, 30:36] = 128
    image[60:80, 150:190] = 230
    return encode_png(image)


def test_the_answer_is_that_of_the_segmenter(
    client: httpx.Client, tiny_model: Path, part: bytes
) -> None:
    expected = Segmenter.load(tiny_model)
    found = expected.segment(decode_image(part, 1))
    answer = client.post("/segment?mask=true", content=part).json()
    mask = decode_samples(base64.b64decode(answer["mask"]))[..., 0]
    assert np.array_equal(mask, found.mask)
    assert answer["verdict"] == "reject"
    assert answer["image"] == {"width": 220, "height": 150}
    assert [(item["class"], item["defect"], item["area"]) for item in answer["objects"]] == [
        ("wire", False, 660),
        ("epoxy", True, 800),
    ]
    for item, same in zip(answer["objects"], found.objects, strict=True):
        assert item["box"] == list(same.box)
        assert item["contour"] == same.contour
        assert item["score"] == pytest.approx(same.score, abs=1e-4)
    assert [(item["name"], item["area"]) for item in answer["classes"]] == [
        ("wire", 660),
        ("epoxy", 800),
    ]
    assert answer["classes"][1]["share"] == pytest.approx(800 / 220 / 150)
    assert answer["model"]["sha256"] == expected.sha256
    assert answer["model"]["git_revision"] == expected.card.git_revision
    assert answer["model"]["validation"] == expected.card.validation
    assert answer["model"] == client.get("/model").json()
    spent = answer["milliseconds"]
    assert 0 < spent["decode"] + spent["predict"] <= spent["total"] + 0.1


def test_a_part_without_a_defect_is_accepted(client: httpx.Client) -> None:
    answer = client.post("/segment", content=encode_png(np.full((64, 64), 128, np.uint8))).json()
    assert answer["verdict"] == "accept"
    assert [item["class"] for item in answer["objects"]] == ["wire"]
    assert "mask" not in answer


def test_body_and_form_give_the_same_answer(client: httpx.Client, part: bytes) -> None:
    def objects(response: httpx.Response) -> object:
        return response.json()["objects"]

    plain = client.post("/segment", content=part)
    assert objects(plain)
    for content_type in ("image/jpeg", "application/octet-stream", "text/html"):
        other = client.post("/segment", content=part, headers={"Content-Type": content_type})
        assert objects(other) == objects(plain)
    form = client.build_request(
        "POST", "/segment", files={"image": ("part.jpg", part, "image/jpeg")}
    )
    form.read()
    assert objects(client.send(form)) == objects(plain)
    form.headers["Content-Type"] = form.headers["Content-Type"].replace("multipart", "Multipart")
    assert objects(client.send(form)) == objects(plain)


def test_the_image_can_be_had_as_the_model_sees_it(client: httpx.Client) -> None:
    data = png16(RGB16, 2)
    answer = client.post("/segment?image=true", content=data).json()
    seen = decode_samples(base64.b64decode(answer["image"]["png"]))
    assert np.array_equal(seen, decode_image(data, 1))


def test_hostile_images_are_refused_and_the_service_lives_on(
    client: httpx.Client, folder: Path, part: bytes
) -> None:
    before = client.post("/segment", content=part).json()["objects"]
    for name, data, outcome in HOSTILE:
        response = client.post("/segment", content=data)
        assert response.status_code == STATUS[outcome], name
        if outcome != "ok":
            assert response.json().keys() == {"error"}, name
            assert response.json()["error"].endswith("."), name
    assert client.get("/livez").status_code == 200
    assert client.post("/segment", content=part).json()["objects"] == before
    assert "Traceback" not in (folder / "output").read_text()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"files": {"image": (None, "text")}}, 422),
        ({"files": {"photo": b"x"}}, 422),
        ({"files": [("image", b"x"), ("image", b"y")]}, 422),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 422),
        ({"params": {"mask": "perhaps"}, "content": b"x"}, 422),
        ({"params": {"maks": "true"}, "content": b"x"}, 422),
    ],
)
def test_requests_that_do_not_fit_are_refused(
    client: httpx.Client, request_: dict[str, Any], status: int
) -> None:
    response = client.post("/segment", **request_)
    assert response.status_code == status
    assert response.json().keys() == {"error"}


def test_a_client_that_goes_away_leaves_no_trace(
    client: httpx.Client, folder: Path, part: bytes
) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port), 30) as connection:
        connection.sendall(REQUEST_WITHOUT_BODY)
        assert b" 100 " in connection.recv(1000)
    assert client.post("/segment", content=part).status_code == 200
    assert "Traceback" not in (folder / "output").read_text()


def test_an_inspection_whose_client_has_gone_is_left_unfinished(
    client: httpx.Client, log: Path, part: bytes
) -> None:
    image = encode_png(np.zeros((4000, 4000), np.uint8))
    request = f"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: {len(image)}\r\n\r\n"
    lines_before = len(log.read_text().splitlines())
    with socket.create_connection((client.base_url.host, client.base_url.port), 30) as connection:
        connection.sendall(request.encode() + image)
    assert client.post("/segment", content=part).status_code == 200
    assert len(log.read_text().splitlines()) == lines_before + 1


def test_an_image_above_the_limit_is_refused(client: httpx.Client) -> None:
    response = client.post("/segment", content=encode_png(np.zeros((5000, 5000), np.uint8)))
    assert response.status_code == 413
    assert "at most 20000000 in all" in response.json()["error"]


def test_a_url_in_place_of_an_image_is_never_fetched(client: httpx.Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bait:
        url = f"http://127.0.0.1:{bait.getsockname()[1]}/part.png"
        for request in (
            {"content": url},
            {"json": {"image": url}},
            {"data": {"image": url}},
            {"files": {"image": (None, url)}},
        ):
            assert client.post("/segment", **request).status_code in (415, 422)
        bait.setblocking(False)
        with pytest.raises(BlockingIOError):
            bait.accept()


def test_a_large_body_is_refused_while_it_arrives(client: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(100_000)

    announced = client.post("/segment", content=bytes(2_000_000))
    streamed = client.post("/segment", content=endless())
    form = client.post("/segment", files={"image": bytes(2_000_000)})
    for response in (announced, streamed, form):
        assert response.status_code == 413
        assert response.json() == {"error": "The request has more than the 1 MiB accepted."}


def test_a_field_that_the_form_does_not_have_is_refused(client: httpx.Client, part: bytes) -> None:
    response = client.post("/segment", files={"image": part}, data={"mask": "true"})
    assert response.status_code == 422
    assert "form field 'mask' is unknown" in response.json()["error"]


def test_an_overloaded_service_answers_so_at_once(client: httpx.Client, part: bytes) -> None:
    address = (client.base_url.host, client.base_url.port)
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(address, 30)) for _ in range(8)]
        for connection in slow:
            connection.sendall(REQUEST_WITHOUT_BODY)
            assert b" 100 " in connection.recv(1000)  # the service waits for the body
        busy = client.post("/segment", content=part)
        assert (busy.status_code, busy.headers["retry-after"]) == (429, "1")
        assert "busy with 8 requests" in busy.json()["error"]
        for path in ("/", "/model", "/readyz"):
            assert client.get(path).status_code == 200
        for connection in slow:
            connection.sendall(b"hello")
            assert b" 415 " in connection.recv(1000)
    assert client.post("/segment", content=part).status_code == 200


def test_each_inspection_leaves_a_line_in_the_log(
    client: httpx.Client, log: Path, part: bytes
) -> None:
    lines_before = len(log.read_text().splitlines())
    client.post("/segment", content=part)
    client.post("/segment", content=b"not inspected")
    (line,) = map(json.loads, log.read_text().splitlines()[lines_before:])
    assert line["verdict"] == "reject"
    assert line["model"] == client.get("/model").json()["sha256"]
    assert {name: line[name] for name in STATISTICS} == image_statistics(decode_image(part, 1))


def test_the_page_is_complete_in_itself(client: httpx.Client) -> None:
    response = client.get("/")
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    for outside in ("http://", "https://", "src=", "@import", "url("):
        assert outside not in response.text


def works_for(folder: Path, process: psutil.Process) -> bool:
    """Tell whether a process is a worker of the service with that folder."""
    with suppress(psutil.Error):  # it may have ended
        variables = process.environ()
        return VARIABLE in variables and variables["BENTOML_HOME"] == str(folder)
    return False


def test_a_worker_that_is_replaced_serves_the_same_model(tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copy(tiny_model, tmp_path / "served.onnx"))
    with served(tmp_path, model) as client:
        before = client.get("/model").json()
        model.write_bytes(b"half a model")
        (worker,) = filter(partial(works_for, tmp_path), psutil.Process().children(recursive=True))
        worker.kill()
        worker.wait(30)
        assert httpx.get(client.base_url.join("/model"), timeout=120).json() == before


def test_a_port_in_use_ends_the_start_with_one_sentence(
    client: httpx.Client, tiny_model: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        COMMAND,
        cwd=ROOT,
        env=environment(tmp_path, tiny_model, BENTOML_PORT=str(client.base_url.port)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert (
        f"cannot listen on 0.0.0.0, port {client.base_url.port} (Address already in use)"
        in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_a_missing_model_ends_the_start_with_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        COMMAND,
        cwd=ROOT,
        env=environment(tmp_path, tmp_path / "segmenter.onnx"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert f"Model file {tmp_path / 'segmenter.onnx'} cannot be read" in done.stderr
    assert "Traceback" not in done.stderr
