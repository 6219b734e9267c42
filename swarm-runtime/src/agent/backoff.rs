//! Pure: how soon an agent opens its next session (SwarmKit: `agent/`).

use std::time::Duration;

/// The first pause, which doubles while no session opens.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// Redirections in a row that are followed without a pause.
const REDIRECTS: u32 = 3;

/// How long a manager may take to accept a stream, to welcome, to take a message. Shorter than the
/// silence after which a node is taken for down: there must be time to try the next manager
/// (SwarmKit: `dispatcherRPCTimeout`).
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What became of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The manager named another one.
    Redirected,
    /// It was open, and ended.
    Lost,
    /// It did not open.
    Unopened,
}

/// The pause before the next session.
#[derive(Clone, Debug)]
pub struct Backoff {
    pause: Duration,
    redirects: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { pause: FIRST_PAUSE, redirects: 0 }
    }
}

impl Backoff {
    /// How long to wait after a session that ended like this; zero is at once.
    pub fn after(&mut self, ended: Ended) -> Duration {
        if ended == Ended::Redirected && self.redirects < REDIRECTS {
            self.redirects += 1;
            return Duration::ZERO;
        }
        if ended == Ended::Lost {
            self.pause = FIRST_PAUSE;
        }
        self.redirects = 0;
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_until_a_session_was_open() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> =
            (0..9).map(|_| backoff.after(Ended::Unopened).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 6_400, 8_000, 8_000]);
        assert_eq!(backoff.after(Ended::Lost), FIRST_PAUSE);
    }

    #[test]
    fn a_few_redirections_are_followed_at_once_and_a_circle_of_them_is_not() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> =
            (0..8).map(|_| backoff.after(Ended::Redirected).as_millis()).collect();
        assert_eq!(pauses, [0, 0, 0, 100, 0, 0, 0, 200]);
    }
}
