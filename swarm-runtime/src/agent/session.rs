//! Keeps a session with a manager open, one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use swarm_core::id::IdSource;
use swarm_core::model::NodeDescription;
use swarm_core::protocol::{AgentMessage, ManagerMessage};
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::backoff::{Backoff, Ended, PATIENCE};
use super::link::{Connection, Link, LinkError};

/// What happens in a session, for the agent.
#[derive(Debug)]
pub(super) enum Event {
    /// One opened: report everything into it.
    Opened(Outbox),
    /// The manager said something.
    Message(ManagerMessage),
    /// It ended.
    Closed,
}

/// Where messages for the manager go. Reports overtake logs.
#[derive(Clone, Debug)]
pub(super) struct Outbox {
    pub(super) reports: mpsc::Sender<AgentMessage>,
    pub(super) logs: mpsc::Sender<AgentMessage>,
    /// Ends the session, so that another one begins.
    pub(super) abandon: CancellationToken,
}

/// What a session is made with.
pub(super) struct Sessions {
    pub(super) link: Arc<dyn Link>,
    pub(super) addr: String,
    pub(super) description: watch::Receiver<NodeDescription>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) cancel: CancellationToken,
    /// Whether the node leaves for good when it is cancelled.
    pub(super) leaving: Arc<AtomicBool>,
}

/// Why a session ended.
enum End {
    Cancelled,
    Refused(String),
    Redirected,
    Lost { opened: bool, why: String },
}

impl Sessions {
    /// Opens session after session; returns why the cluster refuses the node, or `None` once
    /// cancelled.
    pub(super) async fn keep_open(mut self) -> Option<String> {
        let mut backoff = Backoff::new(IdSource::random());
        loop {
            let ended = match self.one().await {
                End::Cancelled => return None,
                End::Refused(reason) => return Some(reason),
                End::Redirected => Ended::Redirected,
                End::Lost { opened, why } => {
                    info!(why, "the session with the manager ended");
                    if opened { Ended::Lost } else { Ended::Unopened }
                }
            };
            let pause = backoff.after(ended);
            debug!(?ended, ?pause, "another session");
            if pause.is_zero() {
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.cancel.cancelled() => return None,
            }
        }
    }

    async fn one(&mut self) -> End {
        let cancel = self.cancel.clone();
        let opened = tokio::select! {
            opened = self.open() => opened,
            () = cancel.cancelled() => return End::Cancelled,
        };
        let (connection, heartbeat) = match opened {
            Ok(opened) => opened,
            Err(end) => return end,
        };
        let end = self.serve(connection, heartbeat).await;
        let _ = self.events.send(Event::Closed).await;
        end
    }

    async fn open(&mut self) -> Result<(Connection, Duration), End> {
        let lost = |why: String| End::Lost { opened: false, why };
        let mut connection = match tokio::time::timeout(PATIENCE, self.link.connect()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(LinkError::Refused(reason))) => return Err(End::Refused(reason)),
            Ok(Err(error)) => return Err(lost(error.to_string())),
            Err(_) => return Err(lost(format!("no connection within {PATIENCE:?}"))),
        };
        let description = self.description.borrow_and_update().clone();
        let hello = AgentMessage::Hello { description, addr: self.addr.clone() };
        send(&connection, hello).await.map_err(lost)?;
        match tokio::time::timeout(PATIENCE, connection.receiver.recv()).await {
            Ok(Some(ManagerMessage::Welcome { session, settings })) => {
                info!(%session, "a session with a manager opened");
                self.link.settings(&settings).map_err(|no| lost(no.to_string()))?;
                Ok((connection, settings.heartbeat.duration()))
            }
            Ok(Some(ManagerMessage::Redirect(settings))) => {
                self.link.settings(&settings).map_err(|no| lost(no.to_string()))?;
                Err(End::Redirected)
            }
            Ok(Some(ManagerMessage::Refused { reason })) => Err(End::Refused(reason)),
            Ok(Some(other)) => Err(lost(format!("a session began with {other:?}"))),
            Ok(None) => Err(lost("the stream ended before the welcome".to_owned())),
            Err(_) => Err(lost(format!("no welcome within {PATIENCE:?}"))),
        }
    }

    async fn serve(&mut self, mut connection: Connection, heartbeat: Duration) -> End {
        let (reports, mut report_queue) = mpsc::channel(16);
        let (logs, mut log_queue) = mpsc::channel(16);
        let abandon = CancellationToken::new();
        let lost = |why: String| End::Lost { opened: true, why };
        let outbox = Outbox { reports, logs, abandon: abandon.clone() };
        if self.events.send(Event::Opened(outbox)).await.is_err() {
            return End::Cancelled;
        }
        let mut beat = ticks(heartbeat);
        loop {
            let message = tokio::select! {
                biased;
                () = self.cancel.cancelled() => {
                    if self.leaving.load(Ordering::Relaxed) {
                        goodbye(&connection, &mut report_queue).await;
                    }
                    return End::Cancelled;
                }
                () = abandon.cancelled() => return lost("a message was lost".to_owned()),
                _ = beat.tick() => AgentMessage::Heartbeat,
                Ok(()) = self.description.changed() => {
                    AgentMessage::Description(self.description.borrow_and_update().clone())
                }
                said = connection.receiver.recv() => match said {
                    None => return lost("the stream ended".to_owned()),
                    Some(ManagerMessage::Settings(settings)) => {
                        if let Err(no) = self.link.settings(&settings) {
                            return lost(no.to_string());
                        }
                        beat = ticks(settings.heartbeat.duration());
                        continue;
                    }
                    Some(ManagerMessage::Trust(trust)) => {
                        self.link.trust(&trust);
                        continue;
                    }
                    Some(ManagerMessage::Redirect(settings)) => {
                        return match self.link.settings(&settings) {
                            Ok(()) => End::Redirected,
                            Err(no) => lost(no.to_string()),
                        };
                    }
                    Some(ManagerMessage::Refused { reason }) => return End::Refused(reason),
                    Some(message) => {
                        if self.events.send(Event::Message(message)).await.is_err() {
                            return End::Cancelled;
                        }
                        continue;
                    }
                },
                Some(report) = report_queue.recv() => report,
                Some(chunk) = log_queue.recv() => chunk,
            };
            if let Err(why) = send(&connection, message).await {
                return lost(why);
            }
        }
    }
}

/// The last reports, and that the node stops on purpose; best effort.
async fn goodbye(connection: &Connection, reports: &mut mpsc::Receiver<AgentMessage>) {
    while let Ok(report) = reports.try_recv() {
        if send(connection, report).await.is_err() {
            return;
        }
    }
    if let Err(why) = send(connection, AgentMessage::Goodbye).await {
        warn!(why, "the manager was not told that this node stops");
    }
}

async fn send(connection: &Connection, message: AgentMessage) -> Result<(), String> {
    match connection.sender.send_timeout(message, PATIENCE).await {
        Ok(()) => Ok(()),
        Err(mpsc::error::SendTimeoutError::Closed(_)) => Err("the stream ended".to_owned()),
        Err(_) => Err(format!("the manager took nothing within {PATIENCE:?}")),
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = tokio::time::interval(period.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
