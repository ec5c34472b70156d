"""The operators' page in a headless Chromium, before a service that answers as a test says."""

import html
import re
import shutil
import subprocess
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

from serving.api import PAGE, PAGE_POLICY

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
PATIENCE = 60
"""Seconds after which a page that should have gone on is taken as it stands."""

# Stands in for the operator: chooses a file, and waits until it is judged and /model has ended.
OPERATOR = """<script>
const until = (selector) => new Promise((resolve) => {
  const look = () => { if (document.querySelector(selector)) resolve(); };
  new MutationObserver(look).observe(document, { subtree: true, childList: true, attributes: true });
  look();
});
const modelEnded = new Promise((resolve) => {
  const look = (entries) => { if (entries.getEntriesByName(new URL("model", location)).length) resolve(); };
  new PerformanceObserver(look).observe({ type: "resource", buffered: true });
});
(async () => {
  await until("BEGIN");
  const chosen = new DataTransfer(), input = document.querySelector("input[type=file]");
  chosen.items.add(new File(["an image"], "part.png"));
  input.files = chosen.files;
  input.dispatchEvent(new Event("change"));
  await until("#verdict:not([data-state=busy])");
  await fetch("judged");
  await modelEnded;
  await fetch("done");
})();
</script>"""
MODEL_SHOWN = "#facts div, [data-state=error]"


@dataclass(frozen=True)
class Answer:
    """What the service sends."""

    body: bytes
    status: int = 200


@dataclass(frozen=True)
class Shown:
    """What the page shows in the end."""

    state: str
    sentence: str
    facts: str


def operated(
    folder: Path, model: Answer | None, segment: Answer | None, late: bool = False
) -> Shown:
    """Return what the page shows to an operator who chooses an image.

    Args:
        folder: an empty one for the browser's profile.
        model: the answer to GET /model; None closes the connection without one.
        segment: that to POST /segment.
        late: /model is answered after the verdict, else before the image is chosen.
    """
    with _Service(model, segment, late) as service:
        Thread(target=service.serve_forever).start()
        command = [CHROMIUM, *OPTIONS, f"--user-data-dir={folder}", "--dump-dom", service.url]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=3 * PATIENCE, check=True
            )
        finally:
            service.shutdown()
    return Shown(
        _part('<section id="verdict" [^>]*data-state="(.*?)"', done.stdout),
        _part('<span id="sentence">(.*?)</span>', done.stdout),
        _part('<dl id="facts">(.*?)</dl>', done.stdout),
    )


def _part(pattern: str, page: str) -> str:
    found = re.search(pattern, page)
    assert found, pattern
    return html.unescape(found[1])


class _Service(ThreadingHTTPServer):
    def __init__(self, model: Answer | None, segment: Answer | None, late: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self.model, self.segment, self.late = model, segment, late
        self.reached = {"/judged": Event(), "/done": Event()}


class _Handler(BaseHTTPRequestHandler):
    server: _Service

    def do_GET(self) -> None:
        if self.path == "/":
            self._send_page()
        elif self.path == "/model":
            if self.server.late:
                self.server.reached["/judged"].wait(PATIENCE)
            self._send(self.server.model)
        elif self.path in self.server.reached:
            self.server.reached[self.path].set()
            self._send(Answer(b""))
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._send(self.server.segment)

    def _send_page(self) -> None:
        """Send the page, and end it when the operator is done: the browser dumps it at its end.

        Its --virtual-time-budget does not wait for the answers to requests.
        """
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Security-Policy", PAGE_POLICY)
        self.end_headers()
        begin = "body" if self.server.late else MODEL_SHOWN
        self.wfile.write(PAGE.read_bytes() + OPERATOR.replace("BEGIN", begin).encode())
        self.server.reached["/done"].wait(PATIENCE)

    def _send(self, answer: Answer | None) -> None:
        if answer is None:
            return
        self.send_response(answer.status)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *arguments: object) -> None:
        pass
