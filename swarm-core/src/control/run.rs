//! The shell around the controller: waits for leadership, commits and time, and carries plans out.

use std::sync::Arc;

use tracing::{debug, info, warn};

use super::{Controller, Planner, RETRY_AFTER, Retry, SWEEP_EVERY, Step};
use crate::id::IdSource;
use crate::store::{Epoch, Store};
use crate::time::{Clock, Timestamp};

/// Runs the planners whenever this store leads. Never returns; drop it (or abort its task) to
/// stop: it holds no facts, and a commit that is cut off is re-read by whoever runs next.
pub async fn run(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    planners: Vec<Arc<dyn Planner>>,
    mut ids: IdSource,
) {
    let mut leadership = store.leadership();
    loop {
        let epoch = leadership.borrow_and_update().epoch();
        if let Some(epoch) = epoch {
            info!(?epoch, "leading: everything is looked at");
            let term = lead(&*store, &*clock, &planners, epoch, &mut ids);
            tokio::select! {
                () = term => {}
                () = lost(&mut leadership, epoch) => {}
            }
            info!(?epoch, "not leading any more");
        } else if leadership.changed().await.is_err() {
            return;
        }
    }
}

async fn lost(
    leadership: &mut tokio::sync::watch::Receiver<crate::store::Leadership>,
    epoch: Epoch,
) {
    let _ = leadership.wait_for(|now| now.epoch() != Some(epoch)).await;
}

async fn lead(
    store: &dyn Store,
    clock: &dyn Clock,
    planners: &[Arc<dyn Planner>],
    epoch: Epoch,
    ids: &mut IdSource,
) {
    let mut view = store.snapshot();
    let mut watch = store.watch(view.version());
    let mut controller = Controller::new(planners.to_vec(), epoch, &view);
    let mut swept = clock.now();
    loop {
        let now = clock.now();
        if now.since(swept) >= SWEEP_EVERY {
            controller.sweep(&view);
            swept = now;
        }
        let step = controller.step(&view, now, ids);
        let more = step.more;
        if !commit(store, &mut controller, step).await {
            return;
        }
        if !more {
            let next = controller.next_at().unwrap_or(swept + SWEEP_EVERY).min(swept + SWEEP_EVERY);
            wait(clock, next, &mut watch, &mut controller, store).await;
        }
        drain(&mut watch, &mut controller, store);
        view = store.snapshot();
    }
}

/// Commits a step; `false` when the epoch is over.
async fn commit(store: &dyn Store, controller: &mut Controller, step: Step) -> bool {
    for reason in &step.reasons {
        debug!(key = ?reason.key, "{}", reason.text);
    }
    let Some(batch) = step.batch else { return true };
    let error = match store.commit(batch).await {
        Ok(version) => {
            controller.committed(version);
            return true;
        }
        Err(error) => error,
    };
    match controller.rejected(&error) {
        Retry::Never => return false,
        Retry::AtOnce => {
            debug!(%error, "the state moved on: deciding again");
            // A store that answers at once would leave nobody else a turn.
            tokio::task::yield_now().await;
        }
        Retry::Later => {
            warn!(%error, "a plan was not committed: trying again");
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
    true
}

/// Waits until something was committed or `next` has come.
async fn wait(
    clock: &dyn Clock,
    next: Timestamp,
    watch: &mut crate::store::Watch,
    controller: &mut Controller,
    store: &dyn Store,
) {
    let pause = next.since(clock.now());
    if pause.is_zero() {
        return;
    }
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        commit = watch.next() => match commit {
            Ok(commit) => controller.observe(&commit),
            Err(_) => resync(watch, controller, store),
        },
    }
}

fn drain(watch: &mut crate::store::Watch, controller: &mut Controller, store: &dyn Store) {
    loop {
        match watch.try_next() {
            Ok(Some(commit)) => controller.observe(&commit),
            Ok(None) => return,
            Err(_) => resync(watch, controller, store),
        }
    }
}

fn resync(watch: &mut crate::store::Watch, controller: &mut Controller, store: &dyn Store) {
    let view = store.snapshot();
    *watch = store.watch(view.version());
    controller.sweep(&view);
}
