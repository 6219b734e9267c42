//! What every [`SecretStore`] promises.

use crate::id::IdSource;
use crate::model::{SecretBytes, SecretId, SecretReference};
use crate::secret::{Reader, SecretError, SecretStore};

/// Runs every check on a store that is empty, or at least holds none of the suite's random ids.
///
/// # Panics
/// With a sentence that names the broken promise.
pub async fn suite(store: &dyn SecretStore) {
    let mut ids = IdSource::random();
    what_was_put_is_what_is_read(store, &mut ids).await;
    bytes_never_change(store, &mut ids).await;
    what_was_removed_is_gone(store, &mut ids).await;
    no_bytes_leak(store, &mut ids).await;
}

fn reader(ids: &mut IdSource) -> Reader {
    Reader { service: ids.next(), task: ids.next(), node: ids.next() }
}

fn reference(id: SecretId) -> SecretReference {
    SecretReference { secret_id: id, ..Default::default() }
}

fn bytes(text: &str) -> SecretBytes {
    text.as_bytes().to_vec().into()
}

async fn what_was_put_is_what_is_read(store: &dyn SecretStore, ids: &mut IdSource) {
    let (one, other) = (ids.next(), ids.next());
    store.put(one, bytes("first")).await.expect("a new secret can be put");
    store.put(other, bytes("second")).await.expect("a second one can be put beside it");
    for _ in 0..2 {
        let read = store.get(&reference(one), &reader(ids)).await;
        assert_eq!(read, Ok(bytes("first")), "what was put is what is read, as often as asked");
    }
    let absent = ids.next();
    let read = store.get(&reference(absent), &reader(ids)).await;
    assert_eq!(read, Err(SecretError::NotFound(absent)), "what was never put is not found");
}

async fn bytes_never_change(store: &dyn SecretStore, ids: &mut IdSource) {
    let id = ids.next();
    store.put(id, bytes("same")).await.expect("a new secret can be put");
    assert_eq!(store.put(id, bytes("same")).await, Ok(()), "putting the same bytes again succeeds");
    let changed = store.put(id, bytes("other")).await;
    assert_eq!(changed, Err(SecretError::Immutable(id)), "other bytes for the same id are refused");
    let read = store.get(&reference(id), &reader(ids)).await;
    assert_eq!(read, Ok(bytes("same")), "a refused put changes nothing");
}

async fn what_was_removed_is_gone(store: &dyn SecretStore, ids: &mut IdSource) {
    let (id, kept) = (ids.next(), ids.next());
    store.put(id, bytes("gone")).await.expect("a new secret can be put");
    store.put(kept, bytes("kept")).await.expect("a second one can be put beside it");
    store.remove(id).await.expect("a secret can be removed");
    let read = store.get(&reference(id), &reader(ids)).await;
    assert_eq!(read, Err(SecretError::NotFound(id)), "what was removed is not found");
    let read = store.get(&reference(kept), &reader(ids)).await;
    assert_eq!(read, Ok(bytes("kept")), "removing one secret leaves the others");
    assert_eq!(store.remove(id).await, Ok(()), "removing it again succeeds");
    assert_eq!(store.remove(ids.next()).await, Ok(()), "removing an unknown one succeeds");
}

async fn no_bytes_leak(store: &dyn SecretStore, ids: &mut IdSource) {
    const CANARY: &str = "canary-5f1d";
    let id = ids.next();
    store.put(id, bytes(CANARY)).await.expect("a new secret can be put");
    let read = store.get(&reference(id), &reader(ids)).await;
    assert!(!format!("{read:?}").contains(CANARY), "bytes appear in no Debug output");
    let refused = store.put(id, bytes("canary-other")).await.expect_err("other bytes are refused");
    let shown = format!("{refused} {refused:?}");
    assert!(!shown.contains("canary"), "bytes appear in no error: {shown}");
}
