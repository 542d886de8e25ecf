//! How fast deliveries to one webhook may follow each other: what keeps a bad neighbour from hurting anybody.
//!
//! [`Pacer`] is the state of one webhook in one worker, put together from small rules: a [`share()`] of the fleet's caps, a
//! token [`Bucket`], a circuit [`Breaker`], the [`Pulse`] of recent requests, a waiting [`room`](places), and what is parked
//! ([`Backlog`]). It is told what happens and answers whether a delivery starts, waits a moment in place, or is parked and
//! for how long. It has no clock: every call takes the time, which must come from a clock that never goes back.

mod backlog;
mod breaker;
mod bucket;
mod pacer;
mod pulse;
mod quota;
mod room;
mod share;

pub use backlog::{Backlog, Budget, MAX_REPARKED_PER_SECOND, RUNGS_SECS, rung};
pub use breaker::{Breaker, Health, Permission};
pub use bucket::Bucket;
pub use pacer::{
    Answer, Asking, Call, End, LANES, Limits, MAX_PAUSE_MS, Pacer, Reason, Refusal, Scene, State, Ticket,
};
pub use pulse::{Pulse, SLOW_MS};
pub use quota::Quota;
pub use room::{MAX_WAIT_MS, places};
pub use share::{rate_share, share};
