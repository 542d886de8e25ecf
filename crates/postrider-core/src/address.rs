//! Which addresses a delivery may reach.
//!
//! Only global unicast addresses, unless the operator opened a range with `POSTRIDER_EGRESS_ALLOW`. IPv6 is judged by an
//! allow-list of allocated space, and an address that carries an IPv4 address inside is judged by that one
//! (`reference/reliability.md` S-1 to S-5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

/// Ranges that the operator opened, beside all global unicast addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressPolicy {
    allow: Vec<IpNet>,
}

/// The longest URL that is accepted, bytes.
pub const MAX_URL_BYTES: usize = 2048;

/// Why a URL is not one that deliveries can be sent to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// Not a URL.
    #[error("the URL cannot be read: {0}")]
    Malformed(String),
    /// Too long.
    #[error("the URL is longer than {MAX_URL_BYTES} bytes")]
    TooLong,
    /// Another scheme.
    #[error("the URL must begin with https:// or http://, not {0}:")]
    Scheme(String),
    /// `http:` where only `https:` is allowed.
    #[error("the URL must begin with https:// (POSTRIDER_HTTPS_ONLY is set)")]
    HttpsOnly,
    /// A user name or password in the URL.
    #[error("the URL must not hold a user name or password; use the webhook's api_key or headers")]
    Credentials,
    /// A `#fragment`.
    #[error("the URL must not hold a fragment (#...)")]
    Fragment,
    /// An address that deliveries may not reach.
    #[error(
        "{0} is a private or reserved address; POSTRIDER_EGRESS_ALLOW opens ranges that deliveries may reach"
    )]
    Blocked(IpAddr),
}

impl EgressPolicy {
    /// Global unicast addresses and these ranges.
    pub fn new(allow: Vec<IpNet>) -> Self {
        Self { allow }
    }

    /// The ranges that were opened.
    pub fn opened(&self) -> &[IpNet] {
        &self.allow
    }

    /// Whether a delivery may reach this address.
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allow.iter().any(|range| range.contains(&address)) || is_global_unicast(address)
    }

    /// Reads the URL of a webhook. A literal address is judged here; a name is judged whenever it is resolved.
    ///
    /// # Errors
    /// [`BadUrl`] with what to change.
    pub fn check_url(&self, text: &str, https_only: bool) -> Result<Url, BadUrl> {
        if text.len() > MAX_URL_BYTES {
            return Err(BadUrl::TooLong);
        }
        let url = Url::parse(text.trim()).map_err(|e| BadUrl::Malformed(e.to_string()))?;
        match url.scheme() {
            "https" => {}
            "http" if https_only => return Err(BadUrl::HttpsOnly),
            "http" => {}
            other => return Err(BadUrl::Scheme(other.to_owned())),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadUrl::Credentials);
        }
        if url.fragment().is_some() {
            return Err(BadUrl::Fragment);
        }
        if let Some(address) = literal_address(&url)
            && !self.permits(address)
        {
            return Err(BadUrl::Blocked(address));
        }
        Ok(url)
    }
}

/// The address that a URL names without DNS: a literal, or `localhost`.
pub fn literal_address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(IpAddr::V4(address)),
        Host::Ipv6(address) => Some(IpAddr::V6(address)),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let local = name == "localhost" || name.ends_with(".localhost");
            local.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST))
        }
    }
}

fn is_global_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_global_v4(address),
        IpAddr::V6(address) => is_global_v6(address),
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let number = u32::from(address);
    let within = |a: u8, b: u8, c: u8, d: u8, prefix: u32| {
        let network = u32::from(Ipv4Addr::new(a, b, c, d));
        number >> (32 - prefix) == network >> (32 - prefix)
    };
    // IANA special-purpose registry, multicast, reserved; then a cloud platform's own address in public space.
    !(within(0, 0, 0, 0, 8)
        || within(10, 0, 0, 0, 8)
        || within(100, 64, 0, 0, 10)
        || within(127, 0, 0, 0, 8)
        || within(169, 254, 0, 0, 16)
        || within(172, 16, 0, 0, 12)
        || within(192, 0, 0, 0, 24)
        || within(192, 0, 2, 0, 24)
        || within(192, 31, 196, 0, 24)
        || within(192, 52, 193, 0, 24)
        || within(192, 88, 99, 0, 24)
        || within(192, 168, 0, 0, 16)
        || within(192, 175, 48, 0, 24)
        || within(198, 18, 0, 0, 15)
        || within(198, 51, 100, 0, 24)
        || within(203, 0, 113, 0, 24)
        || within(224, 0, 0, 0, 4)
        || within(240, 0, 0, 0, 4)
        || within(168, 63, 129, 16, 32))
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    let number = u128::from(address);
    let within =
        |network: &Ipv6Addr, prefix: u32| number >> (128 - prefix) == u128::from(*network) >> (128 - prefix);
    let net = |a: u16, b: u16| Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0);
    // Space that IANA has given to the regional registries.
    let allocated = [
        (net(0x2001, 0x0200), 23),
        (net(0x2001, 0x0400), 22),
        (net(0x2001, 0x0800), 21),
        (net(0x2001, 0x1000), 20),
        (net(0x2001, 0x2000), 19),
        (net(0x2001, 0x4000), 18),
        (net(0x2001, 0x8000), 17),
        (net(0x2003, 0x0000), 18),
        (net(0x2400, 0x0000), 12),
        (net(0x2410, 0x0000), 12),
        (net(0x2600, 0x0000), 12),
        (net(0x2610, 0x0000), 23),
        (net(0x2620, 0x0000), 23),
        (net(0x2630, 0x0000), 12),
        (net(0x2800, 0x0000), 12),
        (net(0x2a00, 0x0000), 12),
        (net(0x2a10, 0x0000), 12),
        (net(0x2c00, 0x0000), 12),
    ];
    // Special purposes inside that space: documentation, and the anycast addresses that serve reverse lookups.
    let special = [(net(0x2001, 0x0db8), 32), (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48)];
    allocated.iter().any(|(network, prefix)| within(network, *prefix))
        && !special.iter().any(|(network, prefix)| within(network, *prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_global_unicast_is_permitted() {
        let policy = EgressPolicy::default();
        for good in
            ["93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "2a00:1450:4001::1", "1.1.1.1"]
        {
            assert!(policy.permits(good.parse().unwrap()), "{good}");
        }
        for bad in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "100.100.100.200",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8.".trim_end_matches(".8."),
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "2001:10::1",
            "100::1",
            "::7f00:1",
            "fec0::1",
            "5f00::1",
        ] {
            if let Ok(address) = bad.parse() {
                assert!(!policy.permits(address), "{bad}");
            }
        }
        assert!(policy.permits("::ffff:8.8.8.8".parse().unwrap()), "judged by the address inside");
    }

    #[test]
    fn the_operator_can_open_ranges() {
        let policy = EgressPolicy::new(vec!["127.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        assert!(policy.permits("127.0.0.1".parse().unwrap()));
        assert!(policy.permits("::ffff:127.0.0.1".parse().unwrap()));
        assert!(policy.permits("fd00::1".parse().unwrap()));
        assert!(!policy.permits("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn bad_urls_say_why() {
        let check = |text: &str| EgressPolicy::default().check_url(text, false).unwrap_err();
        assert_eq!(check("ftp://example.com/"), BadUrl::Scheme("ftp".into()));
        assert_eq!(check("javascript:alert(1)"), BadUrl::Scheme("javascript".into()));
        assert!(matches!(check("hooks"), BadUrl::Malformed(_)));
        assert!(matches!(check("https://"), BadUrl::Malformed(_)));
        assert_eq!(check("https://u:p@example.com/"), BadUrl::Credentials);
        assert_eq!(check("https://example.com/#x"), BadUrl::Fragment);
        assert_eq!(check(&format!("https://example.com/{}", "a".repeat(2048))), BadUrl::TooLong);
        for private in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0177.0.0.1/",
            "http://0x7f.1/",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://localhost/",
            "http://a.localhost./",
        ] {
            assert!(matches!(check(private), BadUrl::Blocked(_)), "{private}");
        }
        let https_only = EgressPolicy::default().check_url("http://example.com/", true);
        assert_eq!(https_only, Err(BadUrl::HttpsOnly));
        assert!(EgressPolicy::default().check_url("https://example.com/hooks?a=b", true).is_ok());
    }
}
