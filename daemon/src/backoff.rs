//! Delays between retries.

use std::time::Duration;

/// A delay that doubles with each failure, with jitter, so that simultaneous failures do not retry at the same time.
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    pub longest: Duration,
}

impl Backoff {
    /// Returns the delay after this many earlier failures: 75 to 100 % of the nominal one.
    pub fn delay(&self, failures: u32) -> Duration {
        let nominal = self.first.saturating_mul(2u32.saturating_pow(failures)).min(self.longest);
        nominal.mul_f64(rand::random_range(0.75..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_delay_doubles_up_to_the_limit() {
        let backoff = Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(300) };
        for (failures, seconds) in [(0, 5.0), (1, 10.0), (3, 40.0), (9, 300.0), (u32::MAX, 300.0)] {
            let delay = backoff.delay(failures).as_secs_f64();
            assert!((0.75 * seconds..=seconds).contains(&delay), "{delay} s after {failures} failures");
        }
    }
}
