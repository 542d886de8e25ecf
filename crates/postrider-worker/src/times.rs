//! Where the time of a request goes.
//!
//! The HTTP client says nothing of that. But it resolves and connects within the task that waits for the request, so what
//! happens there can be noted beside it: [`Measured::of`] is around the request, [`resolved`] and [`Timed`] are inside.
//! A connection that the client goes on making after another became free belongs to no request, and is noted nowhere.

use std::cell::Cell;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use postrider_core::wire::RequestTimes;
use tokio::time::Instant;
use tower::{Layer, Service};

tokio::task_local! {
    static MEASURED: Measured;
}

/// What was noted of a request.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    dns: Cell<Option<Duration>>,
    connect: Cell<Option<Duration>>,
}

impl Measured {
    /// Waits for a request, and says where its time went until then. Whether it was answered the caller knows.
    pub(crate) async fn of<T>(request: impl Future<Output = T>) -> (T, Taken) {
        let begun = Instant::now();
        let noted = async {
            let done = request.await;
            let taken = MEASURED.with(|noted| Taken {
                dns: noted.dns.get(),
                connect: noted.connect.get(),
                whole: begun.elapsed(),
            });
            (done, taken)
        };
        MEASURED.scope(Self::default(), noted).await
    }
}

/// What a request took until its answer's head was there, or there was none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    dns: Option<Duration>,
    connect: Option<Duration>,
    whole: Duration,
}

impl Taken {
    /// Of a request that was answered. One that made no connection had one that was kept, whether or not it had begun to make another.
    pub(crate) fn answered(self) -> RequestTimes {
        let dns = self.dns.filter(|_| self.connect.is_some());
        let first_byte_ms = Some(whole_ms(self.whole));
        RequestTimes { dns_ms: dns.map(whole_ms), connect_ms: self.connect.map(whole_ms), first_byte_ms }
    }

    /// Of one that was not.
    pub(crate) fn unanswered(self) -> RequestTimes {
        let (dns_ms, connect_ms) = (self.dns.map(whole_ms), self.connect.map(whole_ms));
        RequestTimes { dns_ms, connect_ms, first_byte_ms: None }
    }
}

fn whole_ms(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

/// Notes something of the request that this task waits for; nothing where there is none.
fn note(what: impl FnOnce(&Measured)) {
    MEASURED.try_with(what).ok();
}

/// Notes how long a name took.
pub(crate) fn resolved(took: Duration) {
    note(|noted| noted.dns.set(Some(took)));
}

/// A layer around whatever makes connections, which notes how long that took, without the name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timed;

impl<S> Layer<S> for Timed {
    type Service = TimedConnector<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TimedConnector { inner }
    }
}

/// What [`Timed`] makes of a connector.
#[derive(Clone, Debug)]
pub(crate) struct TimedConnector<S> {
    inner: S,
}

impl<S, To> Service<To> for TimedConnector<S>
where
    S: Service<To>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, to: To) -> Self::Future {
        let connecting = self.inner.call(to);
        Box::pin(async move {
            let begun = Instant::now();
            let connection = connecting.await?;
            let took = begun.elapsed();
            note(|noted| {
                noted.connect.set(Some(took.saturating_sub(noted.dns.get().unwrap_or_default())));
            });
            Ok(connection)
        })
    }
}

#[cfg(test)]
mod tests {
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    async fn connect() -> Result<(), ()> {
        let connector = service_fn(async |()| {
            tokio::time::sleep(MS(20)).await;
            resolved(MS(20));
            tokio::time::sleep(MS(30)).await;
            Ok(())
        });
        Timed.layer(connector).oneshot(()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_knows_what_its_connection_took() {
        let ((), taken) = Measured::of(async {
            connect().await.unwrap();
            tokio::time::sleep(MS(100)).await;
        })
        .await;
        assert_eq!(
            taken.answered(),
            RequestTimes { dns_ms: Some(20), connect_ms: Some(30), first_byte_ms: Some(150) }
        );
        assert_eq!(
            taken.unanswered(),
            RequestTimes { dns_ms: Some(20), connect_ms: Some(30), first_byte_ms: None }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_came_free_meanwhile_is_none_of_its_own() {
        let ((), taken) = Measured::of(async {
            resolved(MS(20));
            tokio::time::sleep(MS(100)).await;
        })
        .await;
        let told = RequestTimes { dns_ms: None, connect_ms: None, first_byte_ms: Some(100) };
        assert_eq!(taken.answered(), told);
        assert_eq!(taken.unanswered().dns_ms, Some(20), "as far as anybody knows");
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_on_in_another_task_belongs_to_no_request() {
        let ((), taken) = Measured::of(async {
            tokio::spawn(connect()).await.unwrap().unwrap();
        })
        .await;
        assert!(taken.unanswered().is_unknown());
    }
}
