//! A cap on requests in flight and on requests a second, for all webhooks of a tenant.

use super::bucket::Bucket;
use crate::time::Timestamp;

/// What is in flight of one tenant, and its tokens.
#[derive(Clone, Debug, Default)]
pub struct Quota {
    in_flight: u32,
    bucket: Bucket,
}

impl Quota {
    /// Lets one request begin, or says in how many milliseconds it is worth asking again; `expected_ms` is what a request
    /// takes.
    ///
    /// # Errors
    /// The wait, milliseconds; at least 1.
    pub fn begin(
        &mut self,
        now: Timestamp,
        most: Option<u32>,
        per_second: Option<f64>,
        expected_ms: u64,
    ) -> Result<(), u64> {
        if let Some(most) = most
            && self.in_flight >= most
        {
            return Err((expected_ms / u64::from(most.max(1))).max(1));
        }
        if let Some(per_second) = per_second
            && !self.bucket.take(now, per_second)
        {
            return Err(self.bucket.wait_ms(now, per_second, 0).max(1));
        }
        self.in_flight += 1;
        Ok(())
    }

    /// One is over.
    pub fn ended(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// How many are in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_its_cap_and_its_rate() {
        let mut quota = Quota::default();
        let at = Timestamp::from_millis;
        assert_eq!(quota.begin(at(0), Some(2), None, 100), Ok(()));
        assert_eq!(quota.begin(at(0), Some(2), None, 100), Ok(()));
        assert_eq!(quota.begin(at(0), Some(2), None, 100), Err(50));
        quota.ended();
        assert_eq!(quota.begin(at(0), Some(2), Some(1.0), 100), Ok(()));
        quota.ended();
        assert_eq!(quota.begin(at(0), Some(2), Some(1.0), 100), Err(1_000));
        assert_eq!(quota.in_flight(), 1);
    }
}
