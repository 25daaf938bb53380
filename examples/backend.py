"""A backend for a first try: prints the body of each POST. python3 examples/backend.py [PORT [ADDRESS]]"""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Backend(BaseHTTPRequestHandler):
    """Takes every message."""

    def do_POST(self) -> None:
        """Prints the body and answers 204."""
        print(self.rfile.read(int(self.headers["content-length"])).decode(), flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Says nothing of its own."""


port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
address = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"
HTTPServer((address, port), Backend).serve_forever()
