"""A backend for gunicorn (wsgi) and uvicorn (asgi). It says on standard output what it has got, one line of JSON a request."""

import json
import os
import sys

KEYS = os.environ["KEYS"].encode()


def answer(path, headers, body):
    seen = {
        "path": path,
        "key": headers.get("idempotency-key", ""),
        "attempt": headers.get("x-fastsock-attempt", ""),
    }
    sys.stdout.write(json.dumps(seen) + "\n")
    sys.stdout.flush()
    if path == "/auth":
        allowed = {"allow": True, "client_id": json.loads(body)["credential"]}
        return json.dumps(allowed).encode()
    return KEYS if path == "/jwks" else b"ok"


def wsgi(environ, start_response):
    headers = {
        name[len("HTTP_"):].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = answer(environ["PATH_INFO"], headers, environ["wsgi.input"].read(length))
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    body = answer(scope["path"], headers, body)
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})
