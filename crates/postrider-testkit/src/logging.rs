use std::sync::Once;

use tracing_subscriber::EnvFilter;

/// Sends the log to the output of the running test; `RUST_LOG` chooses what, warnings otherwise.
///
/// Call it first in any test; only the first call does something.
pub fn logging() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
        // A subscriber that a test has set before us may stay.
        tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init().ok();
    });
}
