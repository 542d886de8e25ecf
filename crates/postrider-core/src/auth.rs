//! How a webhook authenticates: what is accepted, what `Authorization` says, how a token is asked for.
//!
//! Secrets are never part of a message: what is wrong is said by its place alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use url::Url;
use url::form_urlencoded;
use zeroize::{Zeroize as _, Zeroizing};

use crate::request::{Header, Request, USER_AGENT};
use crate::webhook::{Auth, ClientTls, Oauth2};

/// The most bytes of a user name, a password, a client's id or its secret, scopes and an audience.
pub const MAX_CREDENTIAL_BYTES: usize = 1024;
/// The most bytes of a bearer token.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// The most bytes of a certificate chain or a private key, PEM.
pub const MAX_PEM_BYTES: usize = 64 * 1024;
/// The most certificates of a chain or of an authority.
pub const MAX_CERTIFICATES: usize = 32;
/// How long a token is kept of which the server does not say how long it lasts, seconds.
pub const DEFAULT_TOKEN_SECS: u64 = 300;
/// The longest that a token is kept, seconds.
pub const MAX_TOKEN_SECS: u64 = 24 * 3600;
/// A token is renewed at most this long before it ends, seconds.
const MAX_SKEW_MS: u64 = 30_000;

/// Why credentials of a webhook are refused. The text says where, and what is expected there; never what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member}: {problem}")]
pub struct BadAuth {
    /// Which member, from the webhook's `auth` or `tls` on.
    pub member: &'static str,
    /// What it must be.
    pub problem: String,
}

fn bad<T>(member: &'static str, problem: impl Into<String>) -> Result<T, BadAuth> {
    Err(BadAuth { member, problem: problem.into() })
}

impl Auth {
    /// Checks what can be checked without asking anybody. Whether `token_url` may be reached is for
    /// [`crate::address::EgressPolicy::check_url`].
    ///
    /// # Errors
    /// [`BadAuth`] with the first member that is wrong.
    pub fn check(&self) -> Result<(), BadAuth> {
        match self {
            Self::Basic { username, password } => {
                let (at_username, at_password) = ("auth.basic.username", "auth.basic.password");
                if username.is_empty() {
                    return bad(at_username, "it must not be empty");
                }
                if username.contains(':') {
                    return bad(at_username, "it must not hold a colon: HTTP could not tell where it ends");
                }
                no_controls(at_username, username)?;
                no_controls(at_password, password)
            }
            Self::Bearer { token } => {
                let member = "auth.bearer.token";
                if token.is_empty() {
                    return bad(member, "it must not be empty");
                }
                if !is_token(token) {
                    let problem = format!(
                        "it must have at most {MAX_TOKEN_BYTES} characters of A-Z, a-z, 0-9 and -._~+/, with = only at \
                         the end; give it without the word Bearer"
                    );
                    return bad(member, problem);
                }
                Ok(())
            }
            Self::Oauth2(oauth2) => oauth2.check(),
        }
    }

    /// Checks that no other header of the webhook, nor its API key, is `Authorization` too.
    ///
    /// # Errors
    /// [`BadAuth`] if one is.
    pub fn check_beside<'a>(&self, headers: impl IntoIterator<Item = &'a str>) -> Result<(), BadAuth> {
        match headers.into_iter().any(|name| name.eq_ignore_ascii_case("authorization")) {
            true => bad("auth", "it sets the header Authorization, so headers and api_key must not"),
            false => Ok(()),
        }
    }

    /// The value of `Authorization`; `token` is what the token server gave. OAuth 2.0 says nothing without one.
    pub fn authorization(&self, token: Option<&str>) -> Option<Zeroizing<String>> {
        let bearer = |token: &str| Zeroizing::new(format!("Bearer {token}"));
        match self {
            Self::Basic { username, password } => Some(basic(username, password)),
            Self::Bearer { token } => Some(bearer(token)),
            Self::Oauth2(_) => token.map(bearer),
        }
    }
}

/// RFC 7617 with UTF-8.
fn basic(username: &str, password: &str) -> Zeroizing<String> {
    let pair = Zeroizing::new(format!("{username}:{password}"));
    let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
    Zeroizing::new(format!("Basic {}", encoded.as_str()))
}

fn no_controls(member: &'static str, text: &str) -> Result<(), BadAuth> {
    if text.len() > MAX_CREDENTIAL_BYTES || text.chars().any(char::is_control) {
        let problem = format!("it must have no control characters and at most {MAX_CREDENTIAL_BYTES} bytes");
        return bad(member, problem);
    }
    Ok(())
}

/// `b64token` of RFC 6750.
fn is_token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    text.len() <= MAX_TOKEN_BYTES
        && !body.is_empty()
        && body.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b))
}

impl Oauth2 {
    fn check(&self) -> Result<(), BadAuth> {
        if self.token_url.is_empty() {
            return bad("auth.oauth2.token_url", "it must be the URL of the token endpoint");
        }
        // The characters that RFC 6749 allows, appendix A.
        let printable =
            |text: &str| text.len() <= MAX_CREDENTIAL_BYTES && text.bytes().all(|b| matches!(b, b' '..=b'~'));
        for (member, text) in
            [("auth.oauth2.client_id", &self.client_id), ("auth.oauth2.client_secret", &*self.client_secret)]
        {
            if text.is_empty() || !printable(text) {
                let problem = format!("it must be 1 to {MAX_CREDENTIAL_BYTES} printable ASCII characters");
                return bad(member, problem);
            }
        }
        if let Some(scope) = &self.scope {
            let legal = |b: u8| matches!(b, b'!' | b'#'..=b'[' | b']'..=b'~');
            let words =
                |scope: &str| scope.split(' ').all(|word| !word.is_empty() && word.bytes().all(legal));
            if !printable(scope) || !words(scope) {
                return bad(
                    "auth.oauth2.scope",
                    "it must be scopes with one space between, of printable ASCII without \" and \\",
                );
            }
        }
        if let Some(audience) = &self.audience {
            let member = "auth.oauth2.audience";
            if audience.is_empty() {
                return bad(member, "it must not be empty; leave it out instead");
            }
            no_controls(member, audience)?;
        }
        Ok(())
    }

    /// The request for a token (RFC 6749 §4.4.2), to be sent by POST.
    pub fn request(&self, token_url: Url) -> Request {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        if let Some(audience) = &self.audience {
            form.append_pair("audience", audience);
        }
        let mut headers: Vec<Header> = vec![
            ("content-type".into(), "application/x-www-form-urlencoded".into()),
            ("accept".into(), "application/json".into()),
            ("user-agent".into(), USER_AGENT.into()),
        ];
        if self.in_body {
            form.append_pair("client_id", &self.client_id);
            form.append_pair("client_secret", &self.client_secret);
        } else {
            // Both are form-encoded before they are joined (RFC 6749 §2.3.1).
            let encode =
                |text: &str| -> String { form_urlencoded::byte_serialize(text.as_bytes()).collect() };
            let secret = Zeroizing::new(encode(&self.client_secret));
            let value = basic(&encode(&self.client_id), &secret);
            headers.push(("authorization".into(), value.to_string().into()));
        }
        Request { url: token_url, headers, body: form.finish().into_bytes() }
    }

    /// Reads what the token server answered.
    ///
    /// # Errors
    /// [`NoToken`]: its text has the status and the server's error code, and no secret even if the server sends one back.
    pub fn read_token(&self, status: u16, body: &[u8]) -> Result<Token, NoToken> {
        if status != 200 {
            return Err(NoToken::Refused { status, code: self.error_code(body) });
        }
        // What serde says may quote the token.
        let answer: TokenAnswer = serde_json::from_slice(body).map_err(|_| NoToken::Unreadable)?;
        if !answer.token_type.eq_ignore_ascii_case("bearer") {
            return Err(NoToken::OtherType);
        }
        if !is_token(&answer.access_token) {
            return Err(NoToken::BadToken);
        }
        let lasts_secs = answer.expires_in.unwrap_or(DEFAULT_TOKEN_SECS as f64);
        // Saturates: nothing at all of what is below zero, or no number.
        let lasts_ms = ((lasts_secs * 1000.0) as u64).min(MAX_TOKEN_SECS * 1000);
        Ok(Token { value: answer.access_token, lasts_ms })
    }

    /// The `error` of an answer, if it is a code and gives nothing away.
    fn error_code(&self, body: &[u8]) -> Option<String> {
        let answer: ErrorAnswer = serde_json::from_slice(body).ok()?;
        let code = answer.error;
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        let is_code = !code.is_empty() && code.len() <= 64 && code.bytes().all(legal);
        (is_code && !code.contains(self.client_secret.as_str())).then_some(code)
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Zeroizing<String>,
    token_type: String,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<f64>,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
}

/// A number, or one in quotes, as some servers write it.
fn seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Seconds {
        Number(f64),
        Text(String),
        Other(serde::de::IgnoredAny),
    }
    Ok(match Option::<Seconds>::deserialize(deserializer)? {
        Some(Seconds::Number(seconds)) => Some(seconds),
        Some(Seconds::Text(text)) => text.trim().parse().ok(),
        Some(Seconds::Other(_)) | None => None,
    })
}

/// A token, as the server gave it.
#[derive(Clone)]
pub struct Token {
    /// What `Authorization: Bearer` says.
    pub value: Zeroizing<String>,
    /// How long it lasts from the moment at which it was asked for, milliseconds.
    pub lasts_ms: u64,
}

impl Token {
    /// After how long another is to be fetched, milliseconds: 30 s before the end, or a tenth of its life if that is less.
    pub fn renewed_after_ms(&self) -> u64 {
        self.lasts_ms - (self.lasts_ms / 10).min(MAX_SKEW_MS)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({} ms)", self.lasts_ms)
    }
}

/// Why a token server's answer is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    /// It refused.
    #[error("the token server answered {status}{}", code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default())]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its `error` code, if it gave one.
        code: Option<String>,
    },
    /// No JSON object with a token.
    #[error("the token server answered 200 without access_token and token_type in a JSON object")]
    Unreadable,
    /// A token of another type.
    #[error("the token server gave a token of another type than bearer")]
    OtherType,
    /// Something that cannot stand in a header.
    #[error(
        "the token server gave a token that cannot be sent: too long, or with characters that a token has not"
    )]
    BadToken,
}

impl ClientTls {
    /// Checks that what is given looks like PEM and belongs together. Whether the key fits the certificate shows when the
    /// first connection is made.
    ///
    /// # Errors
    /// [`BadAuth`] with the first member that is wrong.
    pub fn check(&self) -> Result<(), BadAuth> {
        let (at_certificate, at_key, at_ca) = ("tls.certificate_pem", "tls.key_pem", "tls.ca_pem");
        match (&self.certificate_pem, &self.key_pem) {
            (Some(certificate), Some(key)) => {
                certificates(at_certificate, certificate)?;
                private_key(at_key, key)?;
            }
            (Some(_), None) => return bad(at_key, "it is missing: the certificate needs its private key"),
            (None, Some(_)) => return bad(at_certificate, "it is missing: the key needs its certificate"),
            (None, None) if self.ca_pem.is_none() => {
                return bad("tls", "give certificate_pem and key_pem, or ca_pem, or all three");
            }
            (None, None) => {}
        }
        match &self.ca_pem {
            Some(ca) => certificates(at_ca, ca),
            None => Ok(()),
        }
    }
}

fn certificates(member: &'static str, pem: &str) -> Result<(), BadAuth> {
    let labels = blocks(member, pem)?;
    if labels.iter().any(|label| label.ends_with("PRIVATE KEY")) {
        return bad(member, "it holds a private key, which belongs into tls.key_pem");
    }
    if labels.len() > MAX_CERTIFICATES || labels.iter().any(|label| *label != "CERTIFICATE") {
        return bad(
            member,
            format!("it must be 1 to {MAX_CERTIFICATES} CERTIFICATE blocks and nothing else"),
        );
    }
    Ok(())
}

fn private_key(member: &'static str, pem: &str) -> Result<(), BadAuth> {
    if pem.contains("ENCRYPTED") {
        return bad(
            member,
            "it is protected by a passphrase; give it without one (openssl pkey -in KEY.pem -out PLAIN.pem)",
        );
    }
    match blocks(member, pem)?.as_slice() {
        ["PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY"] => Ok(()),
        // As `openssl ecparam -genkey` writes it.
        ["EC PARAMETERS", "EC PRIVATE KEY"] => {
            bad(member, "it must begin with the EC PRIVATE KEY block; leave out the EC PARAMETERS before it")
        }
        _ => bad(
            member,
            "it must be one PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY block and nothing else",
        ),
    }
}

/// The labels of the blocks in a PEM text, in order. Text between the blocks is no matter.
fn blocks<'a>(member: &'static str, pem: &'a str) -> Result<Vec<&'a str>, BadAuth> {
    if pem.len() > MAX_PEM_BYTES {
        return bad(member, format!("it must have at most {MAX_PEM_BYTES} bytes"));
    }
    let mut labels = Vec::new();
    let mut open: Option<(&str, Zeroizing<String>)> = None;
    for line in pem.lines().map(str::trim) {
        let mark = |word: &str| line.strip_prefix(word)?.strip_suffix("-----");
        match (&mut open, mark("-----BEGIN "), mark("-----END ")) {
            (None, Some(label), _) => open = Some((label, Zeroizing::default())),
            (Some((label, content)), None, Some(end)) if *label == end => {
                let mut decoded = STANDARD.decode(content.as_bytes()).unwrap_or_default();
                let empty = decoded.is_empty();
                decoded.zeroize();
                if empty {
                    return bad(member, "what is between BEGIN and END is not base64");
                }
                labels.push(*label);
                open = None;
            }
            (Some((_, content)), None, None) => content.push_str(line),
            (None, None, None) => {}
            (None, None, Some(_)) | (Some(_), _, _) => {
                return bad(member, "its BEGIN and END lines do not fit together");
            }
        }
    }
    if open.is_some() {
        return bad(member, "its last block has no END line: is it cut off?");
    }
    if labels.is_empty() {
        return bad(member, "it must be PEM: lines that begin with -----BEGIN");
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secret(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    fn oauth2() -> Oauth2 {
        Oauth2 {
            token_url: "https://login.example.com/token".into(),
            client_id: "post rider".into(),
            client_secret: secret("a:b&c=d%/u"),
            scope: Some("hooks.write hooks.read".into()),
            audience: Some("https://api.example.com".into()),
            in_body: false,
        }
    }

    fn header(auth: &Auth) -> String {
        auth.authorization(None).unwrap().to_string()
    }

    fn pem(label: &str, bytes: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(bytes))
    }

    #[test]
    fn basic_is_rfc_7617_in_utf_8() {
        let of = |username: &str, password: &str| Auth::Basic {
            username: username.into(),
            password: secret(password),
        };
        // The examples of RFC 7617 §2 and §2.1.
        assert_eq!(header(&of("Aladdin", "open sesame")), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(header(&of("test", "123£")), "Basic dGVzdDoxMjPCow==");
        assert_eq!(of("test", "").check(), Ok(()));
        assert_eq!(of("test", "with:colon").check(), Ok(()));
        for (username, password, member) in [
            ("", "x", "auth.basic.username"),
            ("a:b", "hunter2", "auth.basic.username"),
            ("a\nb", "hunter2", "auth.basic.username"),
            ("a", "hunter2\u{85}", "auth.basic.password"),
            ("a", &"hunter2".repeat(200), "auth.basic.password"),
        ] {
            let error = of(username, password).check().unwrap_err();
            assert_eq!(error.member, member);
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn bearer_takes_tokens_only() {
        let of = |token: &str| Auth::Bearer { token: secret(token) };
        assert_eq!(of("mF_9.B5f-4.1JqM==").check(), Ok(()));
        assert_eq!(header(&of("abc")), "Bearer abc");
        for wrong in ["", "=", "Bearer abc", "a=b", "a\r\nb", "ü", &"x".repeat(MAX_TOKEN_BYTES + 1)] {
            let error = of(wrong).check().unwrap_err();
            assert_eq!(error.member, "auth.bearer.token");
            assert!(!error.to_string().contains("abc"), "{error}");
        }
    }

    #[test]
    fn oauth2_says_which_member_is_wrong() {
        assert_eq!(Auth::Oauth2(oauth2()).check(), Ok(()));
        let with = |change: fn(&mut Oauth2)| {
            let mut changed = oauth2();
            change(&mut changed);
            Auth::Oauth2(changed).check().unwrap_err()
        };
        assert_eq!(with(|o| o.token_url.clear()).member, "auth.oauth2.token_url");
        assert_eq!(with(|o| o.client_id.clear()).member, "auth.oauth2.client_id");
        assert_eq!(with(|o| o.client_secret = secret("hunter2\n")).member, "auth.oauth2.client_secret");
        assert!(!with(|o| o.client_secret = secret("hunter2\n")).to_string().contains("hunter2"));
        for scope in ["", "a  b", " a", "a\"b", "a\\b", "ü"] {
            let mut changed = oauth2();
            changed.scope = Some(scope.to_owned());
            assert_eq!(Auth::Oauth2(changed).check().unwrap_err().member, "auth.oauth2.scope", "{scope:?}");
        }
        assert_eq!(with(|o| o.audience = Some("a\0".into())).member, "auth.oauth2.audience");
        assert_eq!(Auth::Oauth2(oauth2()).check_beside(["x-shop"]), Ok(()));
        assert_eq!(Auth::Oauth2(oauth2()).check_beside(["AUTHORIZATION"]).unwrap_err().member, "auth");
    }

    #[test]
    fn id_and_secret_are_form_encoded_before_they_are_joined() {
        let url = Url::parse("https://login.example.com/token").unwrap();
        let request = oauth2().request(url.clone());
        let header = |name: &str| &request.headers.iter().find(|(n, _)| n == name).unwrap().1;
        let given = header("authorization").strip_prefix("Basic ").unwrap();
        let given = String::from_utf8(STANDARD.decode(given).unwrap()).unwrap();
        assert_eq!(given, "post+rider:a%3Ab%26c%3Dd%25%2Fu");
        assert_eq!(header("content-type"), "application/x-www-form-urlencoded");
        let form = "grant_type=client_credentials&scope=hooks.write+hooks.read&audience=https%3A%2F%2Fapi.example.com";
        assert_eq!(String::from_utf8(request.body).unwrap(), form);

        let request = Oauth2 { in_body: true, ..oauth2() }.request(url);
        assert!(request.headers.iter().all(|(name, _)| name != "authorization"));
        let expected = format!("{form}&client_id=post+rider&client_secret=a%3Ab%26c%3Dd%25%2Fu");
        assert_eq!(String::from_utf8(request.body).unwrap(), expected);
    }

    #[test]
    fn answers_of_token_servers() {
        let read = |status, body: &str| oauth2().read_token(status, body.as_bytes());
        let good = |expires: &str| {
            let body = format!(r#"{{"access_token":"t0k3n","token_type":"Bearer"{expires}}}"#);
            read(200, &body).unwrap()
        };
        assert_eq!(good("").lasts_ms, DEFAULT_TOKEN_SECS * 1000);
        assert_eq!(good(r#","expires_in":null"#).lasts_ms, DEFAULT_TOKEN_SECS * 1000);
        assert_eq!(good(r#","expires_in":"later""#).lasts_ms, DEFAULT_TOKEN_SECS * 1000);
        assert_eq!(good(r#","expires_in":3600"#).lasts_ms, 3_600_000);
        assert_eq!(good(r#","expires_in":"3600""#).lasts_ms, 3_600_000);
        assert_eq!(good(r#","expires_in":-1"#).lasts_ms, 0);
        assert_eq!(good(r#","expires_in":1e30"#).lasts_ms, MAX_TOKEN_SECS * 1000);
        assert_eq!(good(r#","expires_in":3600"#).renewed_after_ms(), 3_570_000);
        assert_eq!(good(r#","expires_in":60"#).renewed_after_ms(), 54_000);
        assert_eq!(good(r#","expires_in":0"#).renewed_after_ms(), 0);
        assert!(!format!("{:?}", good("")).contains("t0k3n"));

        let why = |status, body: &str| read(status, body).unwrap_err().to_string();
        assert_eq!(
            why(401, r#"{"error":"invalid_client"}"#),
            "the token server answered 401 (invalid_client)"
        );
        assert_eq!(why(500, "<html>"), "the token server answered 500");
        assert_eq!(why(400, r#"{"error":"no such client: post rider"}"#), "the token server answered 400");
        assert_eq!(why(302, ""), "the token server answered 302");
        let leaky = Oauth2 { client_secret: secret("hunter2"), ..oauth2() };
        let leaked = leaky.read_token(400, br#"{"error":"bad_hunter2"}"#).unwrap_err();
        assert_eq!(leaked.to_string(), "the token server answered 400");
        for (body, expected) in [
            ("", NoToken::Unreadable),
            (r#"{"access_token":"abc"}"#, NoToken::Unreadable),
            (r#"{"access_token":"abc","token_type":"mac"}"#, NoToken::OtherType),
            (r#"{"access_token":"","token_type":"bearer"}"#, NoToken::BadToken),
            (r#"{"access_token":"a\r\nb","token_type":"bearer"}"#, NoToken::BadToken),
        ] {
            assert_eq!(read(200, body).unwrap_err(), expected);
            assert!(!expected.to_string().contains("abc"));
        }
    }

    #[test]
    fn what_connections_are_made_with_must_look_like_pem() {
        let certificate = pem("CERTIFICATE", b"certificate");
        let key = pem("PRIVATE KEY", b"hunter2");
        let tls = |certificate: Option<&str>, key: Option<&str>, ca: Option<&str>| ClientTls {
            certificate_pem: certificate.map(str::to_owned),
            key_pem: key.map(secret),
            ca_pem: ca.map(str::to_owned),
        };
        let chain = format!("subject=example\r\n{certificate}{}", certificate.replace('\n', "\r\n"));
        assert_eq!(tls(Some(&chain), Some(&key), Some(&certificate)).check(), Ok(()));
        assert_eq!(tls(None, None, Some(&certificate)).check(), Ok(()));
        assert_eq!(tls(Some(&certificate), Some(&pem("EC PRIVATE KEY", b"k")), None).check(), Ok(()));

        let wrong = |certificate: Option<&str>, key: Option<&str>, ca: Option<&str>| {
            let error = tls(certificate, key, ca).check().unwrap_err();
            assert!(!error.to_string().contains("aHVudGVy"), "{error}");
            error.to_string()
        };
        let cut = &certificate[..certificate.len() - 10];
        let many = certificate.repeat(MAX_CERTIFICATES + 1);
        let encrypted = pem("ENCRYPTED PRIVATE KEY", b"hunter2");
        for (certificate, key, ca, expected) in [
            (None, None, None, "tls: give certificate_pem and key_pem"),
            (Some(certificate.as_str()), None, None, "tls.key_pem: it is missing"),
            (None, Some(key.as_str()), None, "tls.certificate_pem: it is missing"),
            (None, None, Some("hello"), "tls.ca_pem: it must be PEM"),
            (None, None, Some(cut), "tls.ca_pem: its last block has no END line"),
            (None, None, Some(many.as_str()), "tls.ca_pem: it must be 1 to 32"),
            (None, None, Some(key.as_str()), "tls.ca_pem: it holds a private key"),
            (Some(&certificate), Some(encrypted.as_str()), None, "tls.key_pem: it is protected"),
            (Some(&certificate), Some(certificate.as_str()), None, "tls.key_pem: it must be one PRIVATE KEY"),
            (
                Some(&certificate),
                Some("-----BEGIN PRIVATE KEY-----\n?\n-----END PRIVATE KEY-----"),
                None,
                "tls.key_pem: what is between",
            ),
        ] {
            let error = wrong(certificate, key, ca);
            assert!(error.starts_with(expected), "{error} / {expected}");
        }
    }

    proptest! {
        #[test]
        fn no_input_is_a_panic(text in "(-----(BEGIN|END) [A-Z ]{0,12}-----\n|[a-zA-Z+/=]{0,20}\n|.{0,20}){0,8}", status in 0u16..1000) {
            let tls = ClientTls { ca_pem: Some(text.clone()), ..ClientTls::default() };
            prop_assert!(tls.check().is_ok() || tls.check().is_err());
            prop_assert!(oauth2().read_token(status, text.as_bytes()).is_err());
        }
    }
}
