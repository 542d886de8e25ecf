"""Verifies requests with the standardwebhooks package.

usage: verify.py SECRET < requests

One request a line: {"headers": {...}, "body": "..."}. The first that does not verify ends it with an error.
"""

import json
import sys

from standardwebhooks import Webhook

webhook = Webhook(sys.argv[1])
verified = 0
for line in sys.stdin:
    request = json.loads(line)
    webhook.verify(request["body"], request["headers"])
    verified += 1
print(f"{verified} verified")
