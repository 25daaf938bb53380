// A backend as Node makes one. It says on standard output what it has got, one line of JSON a request.
// node node.js <port> <seconds it keeps an idle connection> <JWK set> [<certificate> <key>]
"use strict";
const { readFileSync } = require("node:fs");
const http = require("node:http");
const https = require("node:https");

const [port, keepAlive, keys, cert, key] = process.argv.slice(2);

function answer(path, body) {
  switch (path) {
    case "/auth":
      return JSON.stringify({ allow: true, client_id: JSON.parse(body).credential });
    case "/jwks":
      return keys;
    default:
      return "ok";
  }
}

function serve(request, response) {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const seen = {
      path: request.url.split("/").map(decodeURIComponent).join("/"),
      key: request.headers["idempotency-key"] ?? "",
      attempt: request.headers["x-fastsock-attempt"] ?? "",
    };
    process.stdout.write(JSON.stringify(seen) + "\n");
    response.end(answer(request.url, Buffer.concat(chunks)));
  });
}

const server = cert
  ? https.createServer({ cert: readFileSync(cert), key: readFileSync(key) }, serve)
  : http.createServer(serve);
server.keepAliveTimeout = 1000 * keepAlive;
server.listen(port, "127.0.0.1");
