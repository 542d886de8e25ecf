//! The catalogues that come with the program, as they are under `catalogues/`.

/// Their names, each the id of a product.
pub const NAMES: [&str; 4] = ["entrust-idaas", "open-loyalty", "skillmine-auth", "upmind-client"];

/// Their texts, in the order of the names.
const TEXTS: [&str; 4] = [
    include_str!("../../../catalogues/entrust-idaas.toml"),
    include_str!("../../../catalogues/open-loyalty.toml"),
    include_str!("../../../catalogues/skillmine-auth.toml"),
    include_str!("../../../catalogues/upmind-client.toml"),
];

/// Each name with its text.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    NAMES.into_iter().zip(TEXTS)
}

/// The text of one of them.
pub fn text(name: &str) -> Option<&'static str> {
    all().find_map(|(candidate, text)| (candidate == name).then_some(text))
}
