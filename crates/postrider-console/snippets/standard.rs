use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// `header` gives a header by its name, `body` is the bytes as they came, `now` the time in seconds.
pub fn verify<'a>(secret: &str, header: impl Fn(&str) -> Option<&'a str>, body: &[u8], now: i64) -> bool {
    let (Some(id), Some(at), Some(given)) =
        (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"))
    else {
        return false;
    };
    if !at.parse::<i64>().is_ok_and(|at| now.abs_diff(at) <= 300) {
        return false;
    }
    let Ok(key) = STANDARD.decode(secret.trim_start_matches("whsec_")) else { return false };
    given.split(' ').filter_map(|entry| STANDARD.decode(entry.strip_prefix("v1,")?).ok()).any(|signature| {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else { return false };
        mac.update(format!("{id}.{at}.").as_bytes());
        mac.update(body);
        mac.verify_slice(&signature).is_ok()
    })
}
