"""Verifies requests with the lines that docs/profiles.md gives to receivers.

usage: verify_documented.py HEADING SECRET < requests

One request a line: {"method": "...", "url": "...", "headers": {...}, "body": "..."}, names of headers in lower case. The
first that does not verify ends it with an error.
"""

import json
import pathlib
import sys

document = pathlib.Path(__file__).parents[2].joinpath("docs/profiles.md").read_text()
section = document.split(f"\n### {sys.argv[1]}\n")[1]
lines = section.split("```python\n")[1].split("```")[0]
exec(lines)

verified = 0
for line in sys.stdin:
    request = json.loads(line)
    verify(sys.argv[2], request["method"], request["url"], request["headers"], request["body"].encode())  # noqa: F821
    verified += 1
print(f"{verified} verified")
