"""A server on loopback that speaks as much of the Hugging Face Hub's protocol as clients need.

Folders below a root, `owner/name`, are repositories at one commit each, which their content gives.
Large files redirect to another host name, as the Hub's do. Every request is written down, and
faults can be ordered for any file, or for the metadata.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

METADATA = "metadata"  # stands for a file's name where a fault concerns the list of files
LARGE = (".safetensors", ".bin", ".model")  # what the Hub keeps outside git
ERRORS = {
    "gated": (403, "GatedRepo"),
    "forbidden": (403, None),
    "unauthorised": (401, None),
    "no repository": (404, "RepoNotFound"),
    "no revision": (404, "RevisionNotFound"),
    "no file": (404, "EntryNotFound"),
    "expired": (400, "Expired"),  # a storage's own code
    "absent": (404, None),
    "gone": (410, None),
    "limited": (429, None),
    "busy": (503, None),
    "refused": (416, None),
    "error": (500, None),
}


@dataclass
class Fault:
    """What goes wrong with a file: `kind` is one of ERRORS or of these, `times` in all.

    cut: after so many bytes the line breaks (as of any with `after`); slow: 1/100 of the file every
    `seconds`; flipped: its last byte is another; short, long: it is not as large as listed; silent:
    no answer; html: a page of somebody else; down: no answer from then on; circle: it redirects to
    itself; lost: it redirects to nowhere; text: that in place of JSON; whole: all of it, whatever
    part was asked for; empty, shifted, more: the part, but nothing of it, with bytes before it, or
    after it; wrong part: another one, and it says so; zipped: compressed, asked or not; unended:
    all comes, but not the end; unnamed: all of it as a part of which nothing is said; parts: a part
    in an envelope; words: a few in place of the file, of no length that is told. Any fault of "NAME
    address": the Hub gives that of another file, or the one that is its kind.

    `retry` is its Retry-After, `limit` its RateLimit, and `resumed` says that only a request for a
    later part meets it.
    """

    kind: str
    after: int = 0
    seconds: float = 0.0
    times: int = 10**9
    text: str = ""
    retry: str = ""
    limit: str = ""
    resumed: bool = False


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str | None
    host: str | None
    token: str | None


@dataclass
class Repository:
    """The files of a folder; hashes are those that the Hub would list."""

    folder: Path

    @cached_property
    def files(self) -> dict[str, Path]:
        found = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in found}

    @cached_property
    def commit(self) -> str:
        names = "".join(name + self.hash(name) for name in self.files)
        return hashlib.sha1(names.encode()).hexdigest()

    def hash(self, name: str) -> str:
        data = self.files[name].read_bytes()
        if name.endswith(LARGE):
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def entry(self, name: str, *, tree: bool) -> dict[str, object]:
        """A file as the list of a repository has it, or as its tree has it."""
        size, own = self.files[name].stat().st_size, self.hash(name)
        large = {"size": size, "sha256": own, "oid": own, "pointerSize": 134}
        lfs = {"lfs": large} if name.endswith(LARGE) else {}
        if tree:
            return {"type": "file", "path": name, "size": size, "oid": own[:40], **lfs}
        return {"rfilename": name, "size": size, "blobId": own[:40], **lfs}


@dataclass
class HubServer:
    """Serves root while it is entered, `seconds` at the most; commits of your own go by `pins`.

    It `tells` sizes and hashes in its list of files, in headers only, or nowhere ("nothing").
    """

    root: Path
    seconds: float = 120.0
    tells: str = "list"
    pins: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    faults: dict[str, list[Fault]] = field(default_factory=dict)

    def __enter__(self) -> HubServer:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self._end = threading.Timer(self.seconds, self._server.shutdown)
        self._end.daemon = True
        self._end.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.cancel()
        self.stop()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @cached_property
    def repositories(self) -> dict[str, Repository]:
        return {
            f"{folder.parent.name}/{folder.name}": Repository(folder)
            for folder in self.root.glob("*/*")
        }

    def commit(self, repository: str) -> str:
        return self.pins.get(repository) or self.repositories[repository].commit

    def fail(self, file: str, kind: str, **options: object) -> None:
        self.faults.setdefault(file, []).append(Fault(kind, **options))  # type: ignore[arg-type]

    def heal(self) -> None:
        self.faults.clear()

    def fault(self, file: str, *, resumed: bool = False) -> Fault | None:
        for fault in self.faults.get(file, []):
            if fault.times > 0 and (resumed or not fault.resumed):
                fault.times -= 1
                return fault
        return None

    def sent(self) -> Counter[str]:
        """How often each file was asked for, past the redirection."""
        gets = (r.path for r in self.requests if r.method == "GET")
        return Counter(path.split("/", 6)[6] for path in gets if path.startswith("/content/"))

    def wait_for(self, condition: Callable[[HubServer], bool], seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not condition(self):
            assert time.monotonic() < end, f"it did not come to this: {self.requests}"
            time.sleep(0.01)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def __init__(self, hub: HubServer, *arguments: object) -> None:
        self.hub = hub
        super().__init__(*arguments)  # type: ignore[arg-type]

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._respond()

    def do_GET(self) -> None:
        self._respond()

    def _respond(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = (self.headers[name] for name in ("Range", "Host", "Authorization"))
        self.hub.requests.append(Request(self.command, path, *headers))
        of_metadata = r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?"
        of_file = r"/(content/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)"
        # whoever goes away, goes
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if found := re.fullmatch(of_metadata, path):
                self._metadata(found[1], found[3], tree=found[2] == "tree")
            elif found := re.fullmatch(of_file, path):
                self._file(found[2], found[3], found[4], redirected=bool(found[1]))
            else:
                self._refuse(404)

    def _known(self, repository: str, revision: str | None, name: str) -> Fault | None:
        """The fault that is due; answers by itself, and raises, where there is nothing to give."""
        fault = self.hub.fault(name, resumed=self._start() > 0)
        if fault and fault.kind in ERRORS:
            headers = {"Retry-After": fault.retry, "RateLimit": fault.limit}
            self._refuse(*ERRORS[fault.kind], **{k: v for k, v in headers.items() if v})
        elif fault and fault.kind == "circle":
            self._send(b"", {"Location": self.path}, status=302)
        elif fault and fault.kind == "lost":
            self._send(b"somewhere", {}, status=302)
        elif fault and fault.kind == "text":
            self._send(fault.text.encode(), {"Content-Type": "application/json"})
        elif fault and fault.kind == "silent":
            time.sleep(fault.seconds)
            self.close_connection = True
        elif fault and fault.kind == "down":
            self.hub.stop()
            self.close_connection = True
        elif fault and fault.kind == "html":
            self._send(b"<html>Welcome to this hotel</html>", {"Content-Type": "text/html"})
        elif repository not in self.hub.repositories:
            self._refuse(*ERRORS["no repository"])
        elif revision not in (None, "main", self.hub.commit(repository)):
            self._refuse(*ERRORS["no revision"])
        elif name != METADATA and name not in self.hub.repositories[repository].files:
            self._refuse(*ERRORS["no file"])
        else:
            return fault
        raise BrokenPipeError

    def _metadata(self, repository: str, revision: str | None, *, tree: bool) -> None:
        self._known(repository, revision, METADATA)
        files = self.hub.repositories[repository]
        entries = [files.entry(name, tree=tree) for name in files.files]
        if self.hub.tells != "list":
            entries = [{"rfilename": name} for name in files.files]
        commit = self.hub.commit(repository)
        content = entries if tree else {"id": repository, "sha": commit, "siblings": entries}
        self._send(json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _file(self, repository: str, revision: str, name: str, *, redirected: bool) -> None:
        fault = self._known(repository, revision, name) if redirected else None
        if not redirected:
            if repository not in self.hub.repositories:
                return self._refuse(*ERRORS["no repository"])
            files = self.hub.repositories[repository]
            if name not in files.files:
                return self._refuse(*ERRORS["no file"])
            size, port = files.files[name].stat().st_size, self.hub.url.rsplit(":", 1)[1]
            address = f"/content/{repository}/resolve/{revision}/{name}"
            elsewhere = f"http://localhost:{port}{address}" if name.endswith(LARGE) else address
            headers = {"Location": elsewhere, "X-Repo-Commit": self.hub.commit(repository)}
            if self.hub.tells != "nothing":
                changed = self.hub.fault(f"{name} address")
                if changed and "://" in changed.kind:
                    headers["Location"], changed = changed.kind, None
                own = files.hash(name)[::-1] if changed else files.hash(name)
                headers |= {"X-Linked-Size": str(size), "X-Linked-Etag": f'"{own}"'}
            return self._send(b"", headers, status=302)
        return self._content(repository, name, fault)

    def _content(self, repository: str, name: str, fault: Fault | None) -> None:
        files = self.hub.repositories[repository]
        kind = fault.kind if fault else ""
        data = files.files[name].read_bytes()
        if kind == "flipped":
            data = data[:-1] + bytes([data[-1] ^ 1])
        data = {"short": data[:-10], "long": data + bytes(10)}.get(kind, data)
        headers = {"X-Repo-Commit": self.hub.commit(repository), "Accept-Ranges": "bytes"}
        if self.hub.tells != "nothing":
            headers["ETag"] = f'"{files.hash(name)}"'
        start, size, status = 0, len(data), 200
        if self.headers["Range"] and kind not in ("whole", "words"):
            start, status = self._start() + (5 if kind == "wrong part" else 0), 206
            if start >= size:
                return self._refuse(416, **{"Content-Range": f"bytes */{size}"})
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        part = {"empty": b"", "shifted": data[start - 5 :], "more": data[start:] + bytes(5)}
        part |= {"unnamed": data, "words": b"Error", "parts": b"--x\r\n\r\n" + data[start:]}
        body = part.get(kind, data[start:])
        if kind in ("unnamed", "parts"):
            headers.pop("Content-Range", None)
        if kind == "parts":
            headers["Content-Type"] = "multipart/byteranges; boundary=x"
        if kind == "zipped":
            headers["Content-Encoding"], body = "gzip", gzip.compress(body)
        return self._send(body, headers, status=status, fault=fault)

    def _start(self) -> int:
        """From where on a file is asked for."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        return int(asked[1]) if asked else 0

    def _refuse(self, status: int, code: str | None = None, **headers: str) -> None:
        self._send(b"", headers | ({"X-Error-Code": code} if code else {}), status=status)

    def _send(
        self,
        data: bytes,
        headers: dict[str, str],
        *,
        status: int = 200,
        fault: Fault | None = None,
    ) -> None:
        chunked = fault is not None and fault.kind in ("unended", "unnamed", "parts", "words")
        length = {} if chunked else {"Content-Length": str(len(data))}
        self.send_response(status)
        for name, value in {**headers, **length}.items():
            self.send_header(name, value)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
            end = b"" if fault and fault.kind == "unended" else b"0\r\n\r\n"
            data = b"%x\r\n%s\r\n" % (len(data), data) + end
            self.close_connection = True
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault and fault.after:
            data = data[: fault.after]
            self.close_connection = True
        if fault and fault.kind == "slow":
            step = max(1, len(data) // 100)
            for start in range(0, len(data), step):
                self.wfile.write(data[start : start + step])
                time.sleep(fault.seconds)
            return
        self.wfile.write(data)
