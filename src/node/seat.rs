//! A manager's seat among the managers: how a node takes it, keeps it when its address changes, and
//! gives it up.

use std::sync::Arc;
use std::time::Duration;

use swarm_core::id::IdSource;
use swarm_core::model::NodeRole;
use swarm_core::store::{Leadership, Store as _};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::member::Managing;
use super::{Membership, Node, start, status};
use crate::error::{ApiError, Code};
use crate::identity::{Credentials, Identity};
use crate::manager::group::Replicated;
use crate::rpc::message::JoinGroup;
use crate::rpc::{ManagerLink, Whereabouts};

/// The pauses between two requests for a place.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// How long a manager may know no leader until it asks whether it has a place at all.
const OUT_OF_TOUCH: Duration = Duration::from_secs(5);

/// A new id for raft, which nobody else will ever draw.
pub(super) fn new_raft_id() -> u64 {
    1 + IdSource::random().below(u64::MAX - 1)
}

/// What it takes to ask for a place.
pub(super) struct Seat {
    pub(super) credentials: Arc<Credentials>,
    pub(super) membership: Membership,
    pub(super) member: Replicated,
}

impl Seat {
    /// Asks for a place until this manager has one, and knows a leader.
    ///
    /// # Errors
    /// A manager's refusal. That none can be reached is none: it is tried again.
    pub(super) async fn take(&self) -> Result<(), ApiError> {
        let mut pause = PAUSES.0;
        while !self.has_place() {
            match self.ask().await {
                Ok(()) => {
                    let mut leadership = self.member.raft.leadership();
                    let led = leadership.wait_for(|now| *now != Leadership::None);
                    let _ = tokio::time::timeout(PAUSES.1, led).await;
                    if !self.has_place() {
                        tokio::time::sleep(PAUSES.0).await;
                    }
                    continue;
                }
                Err(error) if error.code == Code::Unavailable => {
                    info!(%error, retry_in = ?pause, "no place among the managers yet");
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        Ok(())
    }

    /// Keeps asking, for a manager that was one before.
    ///
    /// # Errors
    /// That its directory is an old copy, or [`Code::AlreadyExists`] when it was taken out of the group
    /// meanwhile: its raft id is spent. Any other answer may change.
    pub(super) async fn keep(&self) -> Result<(), ApiError> {
        let mut pause = PAUSES.0;
        while let Err(error) = self.take().await {
            match start::say(&self.membership, &self.credentials).await {
                Err(copy) if copy.code == Code::FailedPrecondition => return Err(copy),
                _ if error.code == Code::AlreadyExists => return Err(error),
                _ => warn!(%error, retry_in = ?pause, "no place among the managers"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        Ok(())
    }

    /// Asks whenever this manager has known no leader for a while: one that was taken out of the group
    /// before it heard of that hears nothing any more, and believes that it has its place.
    ///
    /// # Errors
    /// [`Code::AlreadyExists`] when it was taken out.
    async fn stay_in_touch(&self) -> Result<(), ApiError> {
        let mut leadership = self.member.raft.leadership();
        while leadership.wait_for(|now| *now == Leadership::None).await.is_ok() {
            let led = leadership.wait_for(|now| *now != Leadership::None);
            match tokio::time::timeout(OUT_OF_TOUCH, led).await {
                Ok(Ok(_)) => continue,
                // The store has stopped: there is no place to keep.
                Ok(Err(_)) => break,
                Err(_) => {}
            }
            match self.ask().await {
                Err(error) if error.code == Code::AlreadyExists => return Err(error),
                answered => debug!(?answered, "no leader is known: asked for the place again"),
            }
        }
        Ok(())
    }

    /// Whether the state that this manager has names it, at its address.
    fn has_place(&self) -> bool {
        let view = self.member.raft.snapshot();
        let status = view.nodes.get(self.membership.node).and_then(|n| n.manager_status.as_ref());
        status.is_some_and(|status| {
            let Membership { raft_id, advertise, start, .. } = &self.membership;
            (status.raft_id, status.start, &status.addr) == (*raft_id, *start, advertise)
        })
    }

    /// Any manager writes it down, itself among them where it can.
    async fn ask(&self) -> Result<(), ApiError> {
        let Membership { raft_id, advertise, managers, start, heard_start, .. } = &self.membership;
        let mut asked = managers.clone();
        let initialized = self.member.raft.is_initialized().await.unwrap_or(false);
        asked.retain(|addr| initialized || addr != advertise);
        if initialized && !asked.contains(advertise) {
            asked.push(advertise.clone());
        }
        let link = ManagerLink::new(self.credentials.clone(), asked);
        let (addr, start, before) = (advertise.clone(), *start, *heard_start);
        link.join_group(JoinGroup { raft_id: *raft_id, addr, start, before }).await
    }
}

impl Node {
    /// Follows the role that the node's certificate gives it, until the node is gone: the present one
    /// first, for a crash may have come between a certificate and what it made of the node.
    pub(super) fn follow_role(&self, mut renewed: watch::Receiver<Identity>) {
        let node = self.me.clone();
        tokio::spawn(async move {
            loop {
                let role = renewed.borrow_and_update().role;
                let mut pause = PAUSES.0;
                loop {
                    let Some(node) = node.upgrade() else { return };
                    let changed = match role {
                        NodeRole::Manager => node.promoted().await,
                        NodeRole::Worker => node.demoted().await,
                    };
                    let Err(error) = changed else { break };
                    warn!(%error, ?role, retry_in = ?pause, "the new role was not taken up");
                    drop(node);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
                if renewed.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Becomes a manager beside being a worker. Nothing to do where it is one.
    async fn promoted(&self) -> Result<(), ApiError> {
        let mut member = self.member.lock().await;
        let Some(member) = member.as_mut().filter(|member| member.managing.is_none()) else {
            return Ok(());
        };
        let erased = self.dir.forget_store();
        erased.map_err(|error| status::local("what was left of a manager", error))?;
        let membership =
            Membership { manager: true, raft_id: new_raft_id(), ..member.membership.clone() };
        // Before anything is started: what fails here is tried again, and leaves nothing that runs.
        self.dir
            .remember(&membership)
            .map_err(|error| status::local("the membership was not kept", error))?;
        let credentials = member.credentials.clone();
        let managing = self.start_managing(&membership, &credentials, None).await?;
        info!(node = %membership.node, "this node is a manager from now on");
        self.is_member(&membership, Some(managing.manager.control().clone()));
        self.keep_seat(&membership, &credentials, &managing);
        self.watch_store(&managing);
        (member.membership, member.managing) = (membership, Some(managing));
        Ok(())
    }

    /// Is a worker alone from now on, and forgets what only managers know.
    async fn demoted(&self) -> Result<(), ApiError> {
        let mut member = self.member.lock().await;
        let Some(member) = member.as_mut() else { return Ok(()) };
        if !member.membership.manager {
            return Ok(());
        }
        let own = member.membership.advertise.clone();
        let mut membership = Membership { manager: false, raft_id: 0, ..member.membership.clone() };
        membership.managers.retain(|addr| *addr != own);
        self.is_member(&membership, None);
        if let Some(managing) = member.managing.take() {
            managing.stop().await;
        }
        self.dir
            .remember(&membership)
            .and_then(|()| self.dir.forget_store())
            .map_err(|error| status::local("what was left of a manager", error))?;
        self.seal_as_locked(false)?;
        info!(node = %membership.node, "this node is a worker from now on");
        // Last: until here it is done again.
        member.membership = membership;
        Ok(())
    }

    /// Remembers where the cluster is, as its managers say: to find it again after a restart, and to
    /// follow none that was given up.
    pub(super) fn follow_cluster(&self, mut at: watch::Receiver<Whereabouts>) {
        let node = self.me.clone();
        tokio::spawn(async move {
            while at.changed().await.is_ok() {
                let Whereabouts { managers, recovery } = at.borrow_and_update().clone();
                let Some(node) = node.upgrade() else { return };
                let mut member = node.member.lock().await;
                let Some(member) = member.as_mut() else { continue };
                let now = Membership { managers, recovery, ..member.membership.clone() };
                if let Err(error) = node.dir.remember(&now) {
                    warn!(%error, "where managers listen was not kept");
                    continue;
                }
                let control = member.managing.as_ref().map(|m| m.manager.control().clone());
                node.is_member(&now, control);
                member.membership = now;
            }
        });
    }

    /// Sees to it in the background that a manager has its place.
    pub(super) fn keep_seat(
        &self,
        membership: &Membership,
        credentials: &Arc<Credentials>,
        managing: &Managing,
    ) {
        let Some(member) = managing.member.clone() else { return };
        let seat =
            Seat { credentials: credentials.clone(), membership: membership.clone(), member };
        let (over, node) = (managing.over.clone(), self.me.clone());
        tokio::spawn(async move {
            let seated = async {
                seat.keep().await?;
                if let Some(node) = node.upgrade() {
                    node.start_was_heard().await;
                }
                seat.stay_in_touch().await
            };
            match (over.run_until_cancelled(seated).await, node.upgrade()) {
                (Some(Err(spent)), Some(node)) if spent.code == Code::AlreadyExists => {
                    warn!(%spent, "this manager was taken out of the group: it joins as a new one");
                    node.take_another_seat().await;
                }
                (Some(Err(copy)), Some(node)) => node.breaks_off(&over, copy.to_string()).await,
                _ => {}
            }
        });
    }

    /// Gives up a place that is lost and takes another. A manager that was demoted and promoted while
    /// it was away has the certificate of a manager all the time, and sees no change of its role.
    async fn take_another_seat(&self) {
        let mut pause = PAUSES.0;
        loop {
            let again = async {
                self.demoted().await?;
                self.promoted().await
            };
            let Err(error) = again.await else {
                // A manager that has yet to hear of the promotion believes no certificate from before.
                self.renew.notify_one();
                return;
            };
            warn!(%error, retry_in = ?pause, "it could not be a new one yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}
