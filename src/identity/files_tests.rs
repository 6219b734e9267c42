//! The identity's files: private, whole after any crash, and sealed without a trace of the plain.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use super::tests::{NOW, certified, somebody};
use super::*;
use crate::crash_disk::{CrashDisk, calm, crash_points};
use swarm_raft::SealKey;

fn files(dir: &Path) -> IdentityFiles {
    IdentityFiles::new(dir)
}

/// The files as a process on this disk has them.
fn on(disk: &CrashDisk, dir: &Path, seal: Option<SealKey>) -> IdentityFiles {
    IdentityFiles::with(Arc::new(disk.clone()), dir, seal)
}

fn holds(dir: &Path, bytes: &[u8]) -> bool {
    let entries = fs::read_dir(dir).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    entries.into_iter().any(|file| file.windows(bytes.len()).any(|at| at == bytes))
}

/// The secret part of a key in PEM: what no file of a locked node may hold.
fn secret(identity: &NodeIdentity) -> Vec<u8> {
    identity.key().expose()[40..80].to_vec()
}

#[test]
fn files_are_private_whatever_the_umask_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("certificates");
    assert!(files(&dir).load().unwrap().is_none());
    let node = certified(&Authority::create(NOW).unwrap(), &somebody(NodeRole::Worker));
    for (umask, seal) in [(0o000, None), (0o077, None), (0o377, Some(SealKey::generate()))] {
        // An older version, or somebody else, may have left more open files.
        if let Ok(key) = fs::File::open(dir.join("swarm-node.key")) {
            key.set_permissions(fs::Permissions::from_mode(0o644)).unwrap();
            fs::write(dir.join("swarm-node.key.next.tmp"), "").unwrap();
        }
        // The umask is the process's: other tests may create files more openly for an instant.
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
        let saved = IdentityFiles::with(Arc::new(swarm_raft::FsDisk), &dir, seal).save(&node);
        rustix::process::umask(before);
        saved.unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(dir.clone()), 0o700);
        let mut names: Vec<String> = Vec::new();
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(mode(entry.path()), 0o600, "{entry:?}");
            names.push(entry.file_name().into_string().unwrap());
        }
        names.sort();
        assert_eq!(names, ["swarm-node.crt", "swarm-node.key", "swarm-root-ca.crt"]);
        let loaded = files(&dir).load();
        match umask {
            0o377 => assert!(matches!(loaded, Err(IdentityError::Key(_))), "it is sealed"),
            _ => assert_eq!(loaded.unwrap().unwrap().key().expose(), node.key().expose()),
        }
    }
}

#[test]
fn a_crash_anywhere_in_a_save_leaves_the_old_or_the_new_identity() {
    let authority = Authority::create(NOW).unwrap();
    let identity = somebody(NodeRole::Worker);
    let [old, new, next] = [(); 3].map(|()| certified(&authority, &identity));
    for seal in [None, Some(SealKey::generate())] {
        let points = crash_points(|disk| {
            let dir = tempfile::tempdir().unwrap();
            let found = on(&calm(), dir.path(), seal.clone());
            found.save(&old).unwrap();
            let saved = on(disk, dir.path(), seal.clone()).save(&new).is_ok();
            let loaded = found.load().unwrap().unwrap();
            let is_new = loaded.certificate_pem() == new.certificate_pem();
            let expected = if is_new { &new } else { &old };
            assert_eq!(loaded.certificate_pem(), expected.certificate_pem());
            assert_eq!(loaded.key().expose(), expected.key().expose());
            assert!(is_new || !saved, "what was saved is there");
            // And the next renewal works from there.
            found.save(&next).unwrap();
            assert_eq!(found.load().unwrap().unwrap().key().expose(), next.key().expose());
        });
        assert!(points > 12, "{points}");
    }
}

#[test]
fn a_crash_anywhere_while_the_key_is_sealed_or_opened_leaves_it_usable() {
    let authority = Authority::create(NOW).unwrap();
    let identity = somebody(NodeRole::Manager);
    let [node, renewed] = [(); 2].map(|()| certified(&authority, &identity));
    let (first, second) = (Some(SealKey::generate()), Some(SealKey::generate()));
    for (from, to) in [(&None, &first), (&first, &second), (&first, &None)] {
        let points = crash_points(|disk| {
            let dir = tempfile::tempdir().unwrap();
            let calm = calm();
            on(&calm, dir.path(), from.clone()).save(&node).unwrap();
            // A crash in an earlier renewal left a key under another name.
            fs::write(dir.path().join("swarm-node.key.next"), node.key().expose()).unwrap();
            fs::write(dir.path().join("swarm-node.key.next.tmp"), renewed.key().expose()).unwrap();
            let changed = on(disk, dir.path(), from.clone()).seal_with(to.clone());
            let load = |seal: &Option<SealKey>| on(&calm, dir.path(), seal.clone()).load();
            // A node that is being locked or unlocked has the key of the locked form at hand.
            let at_hand = if to.is_some() { to } else { from };
            let found = load(at_hand).or_else(|_| load(from)).unwrap().unwrap();
            assert_eq!(found.key().expose(), node.key().expose());
            // The next start goes on from there.
            let again = on(&calm, dir.path(), from.clone());
            if changed.is_err() && load(at_hand).is_ok() {
                on(&calm, dir.path(), at_hand.clone()).seal_with(to.clone()).unwrap();
            } else if changed.is_err() {
                again.seal_with(to.clone()).unwrap();
            }
            assert_eq!(load(to).unwrap().unwrap().key().expose(), node.key().expose());
            assert_eq!(holds(dir.path(), &secret(&node)), to.is_none());
            assert!(!holds(dir.path(), &secret(&renewed)), "a plain key is left");
        });
        assert!(points > 12, "{points}");
    }
}

#[test]
fn damage_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(NOW).unwrap();
    files(dir.path()).save(&certified(&authority, &somebody(NodeRole::Worker))).unwrap();
    fs::remove_file(dir.path().join("swarm-node.key")).unwrap();
    let error = files(dir.path()).load().unwrap_err();
    assert!(error.to_string().contains("swarm-node.key"), "{error}");
    fs::write(dir.path().join("swarm-node.key"), "garbage").unwrap();
    assert!(matches!(files(dir.path()).load(), Err(IdentityError::Key(_))));
    let other = certified(&authority, &somebody(NodeRole::Worker));
    fs::write(dir.path().join("swarm-node.key"), other.key().expose()).unwrap();
    assert!(matches!(files(dir.path()).load(), Err(IdentityError::Key(_))));
    let foreign = Authority::create(NOW).unwrap();
    fs::write(dir.path().join("swarm-root-ca.crt"), foreign.root().pem()).unwrap();
    let error = files(dir.path()).load().unwrap_err();
    assert!(error.to_string().contains("another root signed it"), "{error}");
    fs::write(dir.path().join("swarm-node.crt"), [0xff, 0xfe]).unwrap();
    assert!(files(dir.path()).load().is_err());
}
