import hashlib, hmac

def verify(secret, method, url, headers, body):
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, headers["x-webhook-signature"]):
        raise ValueError("the signature does not fit")
