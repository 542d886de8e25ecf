"""Verifies requests that are signed by RFC 9421, with the http-message-signatures package.

usage: verify_http_message.py SECRET < requests

One request a line: {"method": "...", "url": "...", "headers": {...}, "body": "..."}. The first that does not verify ends
it with an error.
"""

import json
import sys
from datetime import timedelta
from types import SimpleNamespace

from http_message_signatures import HTTPMessageVerifier, HTTPSignatureKeyResolver, algorithms


class OneKey(HTTPSignatureKeyResolver):
    """The same secret, whatever the key is called."""

    def resolve_public_key(self, key_id):
        return sys.argv[1].encode()

    resolve_private_key = resolve_public_key


verifier = HTTPMessageVerifier(signature_algorithm=algorithms.HMAC_SHA256, key_resolver=OneKey())
verified = 0
for line in sys.stdin:
    request = json.loads(line)
    message = SimpleNamespace(method=request["method"], url=request["url"], headers=request["headers"])
    [result] = verifier.verify(
        message,
        max_age=timedelta(minutes=5),
        require_components=["@method", "@target-uri", "content-digest"],
        body=request["body"].encode(),
    )
    if result.label != "sig" or result.parameters["alg"] != "hmac-sha256":
        sys.exit(f"label and algorithm are others: {result.label} {result.parameters}")
    verified += 1
print(f"{verified} verified")
