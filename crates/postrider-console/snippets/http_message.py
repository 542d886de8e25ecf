import base64, hashlib, hmac, re, time

def verify(secret, method, url, headers, body):
    digest = "sha-256=:" + base64.b64encode(hashlib.sha256(body).digest()).decode() + ":"
    parameters = headers["signature-input"].removeprefix("sig=")
    covered = '("@method" "@target-uri" "content-digest");'
    if headers["content-digest"] != digest or not parameters.startswith(covered):
        raise ValueError("the digest does not fit, or is not signed")
    if abs(time.time() - int(re.search(r";created=(\d+)", parameters)[1])) > 300:
        raise ValueError("the signature is too old")
    base = f'"@method": {method}\n"@target-uri": {url}\n"content-digest": {digest}\n"@signature-params": {parameters}'
    expected = base64.b64encode(hmac.new(secret.encode(), base.encode(), hashlib.sha256).digest()).decode()
    if not hmac.compare_digest(f"sig=:{expected}:", headers["signature"]):
        raise ValueError("the signature does not fit")
