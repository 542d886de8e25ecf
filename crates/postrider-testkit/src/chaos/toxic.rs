use std::time::Duration;

use rand::RngExt as _;

/// Which way bytes go through a [`Proxy`](super::Proxy).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From who connected to what the proxy stands in front of.
    Up,
    /// Back.
    Down,
}

/// What a proxy does to the bytes of one way, in the manner of Toxiproxy's list. Its `down` is
/// [`Proxy::cut`](super::Proxy::cut).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toxic {
    /// Each piece arrives so much later, give or take the jitter. The order stays, and so does the throughput.
    Latency {
        /// How much later.
        delay: Duration,
        /// At most so much more or less.
        jitter: Duration,
    },
    /// No more than this passes.
    Bandwidth {
        /// Bytes in a second; at least 1.
        bytes_per_second: u32,
    },
    /// The end of this way is passed on later.
    SlowClose {
        /// How much later.
        delay: Duration,
    },
    /// No byte passes, and the connection is closed in good order after a while.
    Timeout {
        /// Counted from the later of its opening and the setting of this toxic.
        after: Duration,
    },
    /// Bytes pass, and the connection is reset after a while.
    Reset {
        /// Counted from the later of its opening and the setting of this toxic.
        after: Duration,
    },
    /// Bytes pass in small segments.
    Slicer {
        /// The most of one segment; at least 1.
        bytes: usize,
        /// How long to wait between two.
        pause: Duration,
    },
    /// The connection is closed in good order when so much of it has passed this way.
    Limit {
        /// Bytes since the connection's beginning.
        bytes: u64,
    },
}

/// The toxics of one way: at most one of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Toxics(Vec<Toxic>);

impl Toxics {
    pub(super) fn set(&mut self, toxic: Toxic) {
        self.0.retain(|other| std::mem::discriminant(other) != std::mem::discriminant(&toxic));
        self.0.push(toxic);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn find<T>(&self, of: impl Fn(&Toxic) -> Option<T>) -> Option<T> {
        self.0.iter().find_map(of)
    }

    /// How much later a piece arrives that came now.
    pub(super) fn latency(&self) -> Duration {
        let Some((delay, jitter)) = self.find(|toxic| match toxic {
            Toxic::Latency { delay, jitter } => Some((*delay, *jitter)),
            _ => None,
        }) else {
            return Duration::ZERO;
        };
        let least = delay.saturating_sub(jitter);
        least + (delay + jitter - least).mul_f64(rand::rng().random())
    }

    pub(super) fn bytes_per_second(&self) -> Option<u32> {
        self.find(|toxic| match toxic {
            Toxic::Bandwidth { bytes_per_second } => Some((*bytes_per_second).max(1)),
            _ => None,
        })
    }

    pub(super) fn slow_close(&self) -> Duration {
        let delay = self.find(|toxic| match toxic {
            Toxic::SlowClose { delay } => Some(*delay),
            _ => None,
        });
        delay.unwrap_or_default()
    }

    pub(super) fn holds(&self) -> bool {
        self.0.iter().any(|toxic| matches!(toxic, Toxic::Timeout { .. }))
    }

    pub(super) fn slices(&self) -> Option<(usize, Duration)> {
        self.find(|toxic| match toxic {
            Toxic::Slicer { bytes, pause } => Some(((*bytes).max(1), *pause)),
            _ => None,
        })
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.find(|toxic| match toxic {
            Toxic::Limit { bytes } => Some(*bytes),
            _ => None,
        })
    }

    /// When the connection ends whatever passes, and whether by a reset.
    pub(super) fn end(&self) -> Option<(Duration, End)> {
        self.find(|toxic| match toxic {
            Toxic::Timeout { after } => Some((*after, End::Closed)),
            Toxic::Reset { after } => Some((*after, End::Reset)),
            _ => None,
        })
    }
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Reset,
}
