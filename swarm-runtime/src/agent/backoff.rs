//! Pure: how soon an agent opens its next session (SwarmKit: `agent/`).

use std::time::Duration;

use swarm_core::id::IdSource;

/// The first pause at most; it doubles while no session opens. All agents of a manager lose it at the
/// same moment, so each draws its pause: a thousand do not come in one burst.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// No pause is shorter, lest an agent asks in a loop.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
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
pub struct Backoff {
    longest: Duration,
    redirects: u32,
    draw: IdSource,
}

impl Backoff {
    /// The pauses of one agent, drawn from here.
    #[must_use]
    pub fn new(draw: IdSource) -> Self {
        Self { longest: FIRST_PAUSE, redirects: 0, draw }
    }

    /// How long to wait after a session that ended like this; zero is at once.
    pub fn after(&mut self, ended: Ended) -> Duration {
        if ended == Ended::Redirected && self.redirects < REDIRECTS {
            self.redirects += 1;
            return Duration::ZERO;
        }
        if ended == Ended::Lost {
            self.longest = FIRST_PAUSE;
        }
        self.redirects = 0;
        let span = self.longest - SHORTEST_PAUSE;
        self.longest = (self.longest * 2).min(LONGEST_PAUSE);
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        SHORTEST_PAUSE + Duration::from_micros(self.draw.below(micros))
    }

    /// The longest pause that may be drawn after so many attempts that failed.
    #[must_use]
    pub fn longest_after(attempts: u32) -> Duration {
        (FIRST_PAUSE * 2_u32.saturating_pow(attempts)).min(LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_drawn_from_a_span_that_doubles_until_a_session_was_open() {
        let mut longest = [Duration::ZERO; 7];
        for seed in 0..200 {
            let mut backoff = Backoff::new(IdSource::seeded(seed));
            for (attempt, longest) in (0..).zip(&mut longest) {
                let pause = backoff.after(Ended::Unopened);
                assert!(pause >= SHORTEST_PAUSE && pause < Backoff::longest_after(attempt));
                *longest = pause.max(*longest);
            }
            assert!(backoff.after(Ended::Lost) < FIRST_PAUSE);
        }
        for (attempt, longest) in (0..).zip(longest) {
            assert!(longest > Backoff::longest_after(attempt).mul_f64(0.9), "{attempt}");
        }
        assert_eq!(Backoff::longest_after(40), LONGEST_PAUSE);
    }

    #[test]
    fn a_few_redirections_are_followed_at_once_and_a_circle_of_them_is_not() {
        let mut backoff = Backoff::new(IdSource::seeded(1));
        let at_once: Vec<bool> =
            (0..8).map(|_| backoff.after(Ended::Redirected).is_zero()).collect();
        assert_eq!(at_once, [true, true, true, false, true, true, true, false]);
    }
}
