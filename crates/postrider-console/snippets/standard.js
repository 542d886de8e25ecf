import { createHmac, timingSafeEqual } from 'node:crypto';

// `headers` have names in lower case, `body` is the bytes as they came.
export function verify(secret, headers, body) {
  const { 'webhook-id': id, 'webhook-timestamp': at, 'webhook-signature': given } = headers;
  if (!(Math.abs(Date.now() / 1000 - Number(at)) <= 300)) return false;
  const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64');
  const mac = createHmac('sha256', key).update(`${id}.${at}.`).update(body).digest('base64');
  const expected = Buffer.from(`v1,${mac}`);
  return String(given).split(' ').map((entry) => Buffer.from(entry))
    .some((entry) => entry.length === expected.length && timingSafeEqual(entry, expected));
}
