"""The web application: a page to give an input, and the endpoint that it calls."""

import asyncio
import html
import io
import threading
from collections.abc import Collection
from importlib import resources
from typing import Any

import torch
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from lightning_fabric.utilities import move_data_to_device
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from torch import nn

from headstart.errors import UsageError
from headstart.inference.answers import answers_of
from headstart.inference.batches import prepared
from headstart.inference.classifier import Classifier
from headstart.inference.facts import Facts
from headstart.inference.guards import BODY_SECONDS, WAITING, names_of_this_machine, why_refused
from headstart.inference.served_kind import ServedKind
from headstart.inference.served_pictures import ServedPictures
from headstart.inference.served_texts import ServedTexts
from headstart.inputs.base import Preprocess, UnreadableInput

KINDS: dict[str, type[ServedKind]] = {"image-classification": ServedPictures, "text-classification": ServedTexts}
"""`Preprocess.hub_task` -> how such inputs are served."""
FORM = "multipart/form-data"
MOST_FILES, MOST_WITH_MAPS = 100, 10
"""Files in a form, without and with maps."""
LISTED_NAMES = 20
"""Classes that the page lists; it shows more on demand."""
HEADERS = {
    # the page loads nothing from other sites, and other sites may not show it in a frame
    "Content-Security-Policy": "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


class Model:
    """A classifier that answers one request at a time: decoded pictures can be large, so only one is in memory.

    Args:
        classifier: in eval mode.
        device: where the classifier runs.
        max_pixels: larger pictures are refused before they are decoded; None: the limit of the decoder.
    """

    def __init__(self, classifier: Classifier, device: torch.device, max_pixels: int | None = None):
        self.max_pixels = max_pixels
        self.classifier, self.device = classifier.to(device), device
        self.kind = served_kind(classifier.preprocess)
        self.names = list(map(_valid, classifier.classes))
        self.lock = threading.Lock()

    def __call__(self, body: bytes, top_k: int, with_map: bool) -> dict[str, Any]:
        """The most probable classes or the numbers of an input and, if `with_map`, what led to the first one.

        Raises:
            UnreadableInput: the bytes are no input for this model, or cannot be decoded correctly.
        """
        with self.lock:
            preprocess = self.classifier.preprocess
            if self.max_pixels is not None:
                preprocess.refuse_large(io.BytesIO(body), self.max_pixels)
            batch = preprocess.collate([prepared(io.BytesIO(body), preprocess)])
            batch = move_data_to_device(batch, self.device)
            with torch.inference_mode():
                found = self.classifier(batch).float().cpu()
            answers = answers_of(self.classifier, self.names, top_k)
            answer = answers.served(answers.of(found)[0])
            (labels,) = self.classifier.labels(found)
            if labels is not None:
                answer["labels"] = list(map(_valid, labels))
            if with_map:
                network = nn.Sequential(self.classifier.backbone, self.classifier.head)
                output = answers.first_output(found[0])
                answer |= self.kind.explained(network, self.classifier.backbone, body, batch, output)
        return answer


def _valid(name: str) -> str:
    """A class name as valid text, which the name of a folder need not be."""
    return name.encode(errors="replace").decode()


def served_kind(preprocess: Preprocess) -> ServedKind:
    """The kind of input of a model.

    Raises:
        UsageError: there is no page for it.
    """
    if preprocess.hub_task not in KINDS:
        raise UsageError(f"serve is for pictures and texts, not for a {preprocess.sample_name} of this model")
    return KINDS[preprocess.hub_task]()


def build_app(
    model: Model, max_bytes: int, top_k: int, maps: bool, hosts: Collection[str] = (), facts: Facts | None = None
) -> FastAPI:
    """The application.

    Args:
        model: makes the predictions.
        max_bytes: size limit of a file, a text, or all files of a form; a larger request is rejected before it is read
            completely.
        top_k: number of classes in an answer.
        maps: whether explanations are available.
        hosts: names under which the page is reached, besides the names of this machine.
        facts: about the model, for the page; None: it names only the classes.
    """
    names = names_of_this_machine() | {name.lower() for name in hosts}
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    kind = model.kind
    max_bytes = min(max_bytes, kind.most_bytes or max_bytes)
    answers = answers_of(model.classifier, model.names, top_k)
    content = page_of(kind, max_bytes, maps, about_html(facts, answers.key, model.names))
    waiting = 0

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Any:
        reason = why_refused(request.headers, names)
        response = JSONResponse({"detail": reason}, 403) if reason else await call_next(request)
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(RequestValidationError)
    async def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
        (first, *_) = error.errors()
        return JSONResponse({"detail": f"{first['loc'][-1]}={first['input']}: {first['msg']}"}, 422)

    @app.api_route("/", methods=["GET", "HEAD"], response_class=HTMLResponse)
    def page() -> str:
        return content

    @app.get("/health")
    async def health() -> dict[str, Any]:
        known = {} if facts is None else {"network": facts.network, "metrics": facts.metrics}
        return {answers.key: model.names, "input": model.classifier.preprocess.describe()["input"], **known}

    @app.post("/predict")
    async def predict(request: Request, map: bool = False) -> dict[str, Any]:
        if map and not maps:
            raise HTTPException(400, f'{kind.explanations} need the library captum: pip install -e ".[explain]"')
        given = request.headers.get("content-type", "").lower()
        is_form = given.startswith(FORM)
        if not is_form and not kind.accepts(given):
            raise HTTPException(415, f"{given} is not a {kind.noun}: {kind.send}")
        try:
            body = await asyncio.wait_for(_limited(request, max_bytes, kind.noun), BODY_SECONDS)
        except asyncio.TimeoutError as error:
            raise HTTPException(408, f"the {kind.noun} did not arrive within {BODY_SECONDS} s") from error
        nonlocal waiting  # only complete requests count, or a few slow uploads would keep all others out
        if waiting >= WAITING:
            raise HTTPException(503, f"too many {kind.noun}s are waiting: try again later", {"Retry-After": "1"})
        waiting += 1
        try:
            if is_form:
                return await _answers_to_form(request, body, model, top_k, map)
            return await run_in_threadpool(model, body, top_k, map)
        except UnreadableInput as error:
            raise HTTPException(422, f"this {kind.noun} cannot be read: {error.reason}") from error
        finally:
            waiting -= 1

    return app


def page_of(kind: ServedKind, max_bytes: int, maps: bool, about: str) -> str:
    """The page as HTML."""
    here = resources.files(__package__)
    content = (here / kind.page).read_text(encoding="utf-8")
    terminal = (
        f"<details><summary>From a terminal</summary><pre>curl {html.escape(kind.example)} "
        '<span id="address"></span>/predict</pre></details>'
    )
    values = {
        "CSS": (here / "page.css").read_text(encoding="utf-8"),
        "TERMINAL": terminal,
        "MAX_BYTES": str(max_bytes),
        "MAPS": "true" if maps else "false",
        "ABOUT": about,  # last, because a class may have the name of another value
    }
    for name, value in values.items():
        content = content.replace(f"{{{{{name}}}}}", value)
    return content


def about_html(facts: Facts | None, key: str, names: list[str]) -> str:
    """The network, how good it is, and what it can answer, as HTML.

    Args:
        facts: about the model; None: not known.
        key: `classes` or `numbers`.
        names: of the classes or numbers.
    """
    known = [] if facts is None else [f"<strong>{html.escape(facts.network)}</strong>"]
    if facts is not None and facts.score:
        known.append(html.escape(facts.score))
    word = key if len(names) > 1 else key.removesuffix("s")
    listed = html.escape(", ".join(names[:LISTED_NAMES]))
    if len(names) > LISTED_NAMES:
        rest = html.escape(", ".join(names[LISTED_NAMES:]))
        listed += f"<details><summary>and {len(names) - LISTED_NAMES:,} more</summary>{rest}</details>"
    return f'<div class="about">{", ".join([*known, f"{len(names):,} {word}"])}: {listed}</div>'


async def _answers_to_form(request: Request, body: bytes, model: Model, top_k: int, with_map: bool) -> dict[str, Any]:
    """`files`: for each file of a form its name, and its answer or an error.

    Raises:
        HTTPException: the form holds no file, or none that can be read.
    """

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    noun, found = model.kind.noun, []
    async with Request(request.scope, receive).form(max_files=MOST_WITH_MAPS if with_map else MOST_FILES) as form:
        for file in (value for _, value in form.multi_items() if not isinstance(value, str)):
            named = {"file": file.filename}
            try:
                found.append(named | await run_in_threadpool(model, await file.read(), top_k, with_map))
            except UnreadableInput as error:
                found.append(named | {"error": f"this {noun} cannot be read: {error.reason}"})
    if not found:
        raise HTTPException(400, f"the form holds no file: send the {noun}s as curl -F file=@<{noun}> does")
    if all("error" in each for each in found):
        raise HTTPException(422, "; ".join(f"{each['file']}: {each['error']}" for each in found))
    return {"files": found}


async def _limited(request: Request, most: int, noun: str) -> bytes:
    """The body of a request; rejected as soon as it is too large, even if its header gives another length."""
    length = request.headers.get("content-length", "0")
    too_large = HTTPException(413, f"the {noun} is larger than {most / 1e6:g} MB")
    if length.isdigit() and int(length) > most:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise too_large
    except ClientDisconnect as error:  # the client does not read the answer; without this an error would be logged
        raise HTTPException(400, "the request was interrupted") from error
    if not body:
        raise HTTPException(400, f"the request is empty: send the bytes of a {noun}")
    return bytes(body)
