import hashlib, hmac, time
from urllib.parse import urlsplit

def verify(secret, method, url, headers, body):
    timestamp, request_id = headers["x-webhook-timestamp"], headers["x-webhook-request-id"]
    if abs(time.time() - int(timestamp)) > 300:
        raise ValueError("the timestamp is too far away")
    host, path = urlsplit(url).netloc, urlsplit(url).path
    canonical = f"{method}\n{len(host)}:{host}\n{len(path)}:{path}\n{hashlib.sha256(body).hexdigest()}\n{timestamp}\n{request_id}"
    expected = hmac.new(secret.removeprefix("whsec_").encode(), canonical.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, headers["x-webhook-signature"]):
        raise ValueError("the signature does not fit")
