"""Verifies requests that are signed by a canonical string, as a receiver of such webhooks would.

usage: verify_canonical.py SECRET < requests

One request a line: {"method": "...", "url": "...", "headers": {...}, "body": "..."}, names of headers in lower case. The
first that does not verify ends it with an error.
"""

import hashlib
import hmac
import json
import sys
import time
import uuid
from urllib.parse import urlsplit

key = sys.argv[1].removeprefix("whsec_").encode()
verified = 0
for line in sys.stdin:
    request = json.loads(line)
    headers = {name[len("x-webhook-"):]: value for name, value in request["headers"].items()}
    url = urlsplit(request["url"])
    canonical = "\n".join([
        request["method"],
        f"{len(url.netloc)}:{url.netloc}",
        f"{len(url.path)}:{url.path}",
        hashlib.sha256(request["body"].encode()).hexdigest(),
        headers["timestamp"],
        headers["request-id"],
    ])
    expected = hmac.new(key, canonical.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, headers["signature"]):
        sys.exit("the signature does not fit")
    if headers["signature-algorithm"] != "hmac-sha256":
        sys.exit("the algorithm is another")
    if abs(time.time() - int(headers["timestamp"])) > 300:
        sys.exit("the timestamp is more than five minutes away")
    if not 1 <= int(headers["signature-version"]):
        sys.exit("the version is no number")
    uuid.UUID(headers["request-id"])
    verified += 1
print(f"{verified} verified")
