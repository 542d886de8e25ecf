//! Names of receivers: asked of the system's resolver, and every address judged.
//!
//! The system's resolver blocks a thread for as long as it likes, tens of seconds when a name server is silent. So a name
//! is asked for once at a time, however many deliveries wait for it, each of them for two seconds at most; and there is a
//! bound on the names that are asked for at once, so that a few hundred dead ones do not take all threads.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use postrider_core::address::EgressPolicy;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::{local, times};

/// How long a name may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Names that are asked for at once: fewer than the runtime has threads for it, 512.
const MOST_ASKED: usize = 384;
/// Addresses that are looked at.
const MAX_ADDRESSES: usize = 64;

/// Why there is no address to connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unresolved {
    /// The policy forbids one of its addresses.
    #[error("the name resolves to an address that deliveries may not reach")]
    Blocked,
    /// There is none, or the name servers fail.
    #[error("the name does not resolve")]
    Failed,
    /// It takes too long.
    #[error("the name did not resolve within 2 s")]
    Slow,
    /// This machine cannot ask now.
    #[error("this machine cannot ask for the name now")]
    Local,
}

type Found = Result<Arc<[IpAddr]>, Unresolved>;
type Lookup = dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync;

/// Resolves names under an address policy. Clones share what is under way.
#[derive(Clone)]
pub(crate) struct Resolver {
    policy: Arc<EgressPolicy>,
    lookup: Arc<Lookup>,
    asked: Arc<Mutex<HashMap<String, watch::Receiver<Option<Found>>>>>,
    places: Arc<Semaphore>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Resolver {
    /// Asks the system.
    pub(crate) fn new(policy: Arc<EgressPolicy>) -> Self {
        Self::with(policy, |name| {
            Box::pin(async move {
                let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
                Ok(found.take(MAX_ADDRESSES).map(|address| address.ip()).collect())
            })
        })
    }

    fn with(
        policy: Arc<EgressPolicy>,
        lookup: impl Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync + 'static,
    ) -> Self {
        let places = Arc::new(Semaphore::new(MOST_ASKED));
        Self { policy, lookup: Arc::new(lookup), asked: Arc::default(), places }
    }

    /// The addresses of a name, all of them permitted.
    async fn addresses(&self, name: &str) -> Found {
        let mut answer = self.ask(name)?;
        let addresses = match tokio::time::timeout(PATIENCE, answer.wait_for(Option::is_some)).await {
            Ok(Ok(found)) => found.clone().unwrap_or(Err(Unresolved::Failed))?,
            // Whoever asked is gone without an answer.
            Ok(Err(_)) => {
                self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
                return Err(Unresolved::Failed);
            }
            Err(_) => return Err(Unresolved::Slow),
        };
        match addresses.iter().all(|address| self.policy.permits(*address)) {
            true => Ok(addresses),
            false => Err(Unresolved::Blocked),
        }
    }

    /// Joins whoever asks for the name already, or asks.
    fn ask(&self, name: &str) -> Result<watch::Receiver<Option<Found>>, Unresolved> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = asked.get(name) {
            return Ok(answer.clone());
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            tracing::warn!(
                names = MOST_ASKED,
                "too many names are being resolved; the name servers may be down"
            );
            return Err(Unresolved::Local);
        };
        let (sender, answer) = watch::channel(None);
        asked.insert(name.to_owned(), answer.clone());
        let (lookup, asked, name) = (self.lookup.clone(), self.asked.clone(), name.to_owned());
        tokio::spawn(async move {
            let found = match lookup(name.clone()).await {
                Ok(found) if found.is_empty() => Err(Unresolved::Failed),
                Ok(found) => Ok(found.into()),
                Err(error) if local::is_local(&error) || !local::has_descriptors() => Err(Unresolved::Local),
                Err(_) => Err(Unresolved::Failed),
            };
            // Whoever comes from here on asks anew: nothing is kept, so what is mended works at once.
            asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            sender.send_replace(Some(found));
            drop(place);
        });
        Ok(answer)
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let begun = Instant::now();
            let found = resolver.addresses(name.as_str()).await?;
            times::resolved(begun.elapsed());
            let addresses: Vec<SocketAddr> = found.iter().map(|address| (*address, 0).into()).collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustix::io::Errno;

    const GLOBAL: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(93, 184, 215, 14))];

    /// A resolver that answers by name, and how often it was asked.
    fn scripted() -> (Resolver, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let resolver = Resolver::with(Arc::new(EgressPolicy::default()), move |name| {
            count.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                match name.as_str() {
                    "empty" => Ok(Vec::new()),
                    "nxdomain" => Err(io::Error::other("Name or service not known")),
                    "full" => Err(Errno::MFILE.into()),
                    "private" => Ok(vec![GLOBAL[0], "10.0.0.1".parse().unwrap()]),
                    "late" => {
                        tokio::time::sleep(Duration::from_millis(1_500)).await;
                        Ok(GLOBAL.to_vec())
                    }
                    "silent" => {
                        tokio::time::sleep(Duration::from_secs(30)).await;
                        Ok(GLOBAL.to_vec())
                    }
                    name if name.starts_with("silent") => std::future::pending().await,
                    _ => Ok(GLOBAL.to_vec()),
                }
            })
        });
        (resolver, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn names_that_do_not_resolve_say_why_within_two_seconds() {
        let (resolver, _) = scripted();
        for (name, expected) in [
            ("good", Ok(GLOBAL.into())),
            ("late", Ok(GLOBAL.into())),
            ("empty", Err(Unresolved::Failed)),
            ("nxdomain", Err(Unresolved::Failed)),
            ("full", Err(Unresolved::Local)),
            ("private", Err(Unresolved::Blocked)),
            ("silent", Err(Unresolved::Slow)),
        ] {
            let begun = Instant::now();
            assert_eq!(resolver.addresses(name).await, expected, "{name}");
            assert!(begun.elapsed() <= PATIENCE, "{name}: {:?}", begun.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_asked_for_once_at_a_time_and_nothing_is_kept() {
        let (resolver, asked) = scripted();
        let all = futures_util::future::join_all((0..100).map(|_| resolver.addresses("silent"))).await;
        assert!(all.iter().all(|found| *found == Err(Unresolved::Slow)));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        tokio::time::sleep(Duration::from_millis(27_500)).await;
        assert_eq!(
            resolver.addresses("silent").await,
            Ok(GLOBAL.into()),
            "it joins the one that is under way"
        );
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        for n in 1..4 {
            resolver.addresses("good").await.unwrap();
            assert_eq!(asked.load(Ordering::SeqCst), 1 + n);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silent_names_leave_threads_for_others() {
        let (resolver, asked) = scripted();
        let silent = (0..MOST_ASKED).map(|n| {
            let resolver = resolver.clone();
            async move { resolver.addresses(&format!("silent-{n}")).await }
        });
        futures_util::future::join_all(silent).await;
        assert_eq!(asked.load(Ordering::SeqCst), MOST_ASKED);
        assert_eq!(
            resolver.addresses("one-more").await,
            Err(Unresolved::Local),
            "and no fault of the receiver"
        );
    }
}
