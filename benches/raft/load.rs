//! Clients that each write again and again and wait for every answer, and what became of it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What a number of clients achieved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Achieved {
    pub(crate) writes: usize,
    pub(crate) seconds: f64,
    /// Latencies in milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Achieved {
    pub(crate) fn rate(&self) -> f64 {
        #[allow(clippy::cast_precision_loss)]
        let writes = self.writes as f64;
        writes / self.seconds
    }
}

/// Runs `clients` of them for a while; `client` makes one, which is called for each write with
/// its number.
pub(crate) async fn run<C, F>(
    clients: usize,
    length: Duration,
    client: impl Fn(usize) -> C,
) -> Achieved
where
    C: Fn(usize) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send,
{
    let started = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for number in 0..clients {
        let write = client(number);
        running.spawn(async move {
            let mut latencies = Vec::new();
            for turn in 0.. {
                let begun = Instant::now();
                if begun > started + length {
                    break;
                }
                write(turn).await;
                latencies.push(begun.elapsed());
            }
            latencies
        });
    }
    let latencies = running.join_all().await.concat();
    measure(latencies, started.elapsed())
}

/// The figures of these latencies.
pub(crate) fn measure(mut latencies: Vec<Duration>, elapsed: Duration) -> Achieved {
    latencies.sort_unstable();
    let at = |percent: usize| {
        let index = (latencies.len() * percent / 100).min(latencies.len() - 1);
        latencies[index].as_secs_f64() * 1e3
    };
    Achieved { writes: latencies.len(), seconds: elapsed.as_secs_f64(), p50: at(50), p99: at(99) }
}
