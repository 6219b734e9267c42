//! The log below openraft: frames, records, replay.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use openraft::BasicNode;

use super::replay::Replay;
use super::{Log, Sizes};
use crate::frame::{FILE_HEADER, FileKind, Scan, Tail, encode_frame, encode_header, scan};
use crate::keys::DataKeys;
use crate::record::{Base, Record};
use crate::seal::{FileKey, FileSalt, SealKey};
use crate::tests::sim_disk::SimDisk;
use crate::types::{Entry, LogId, Membership, Payload, Proposal, Vote};

const SALT: FileSalt = FileSalt { generation: 1, random: [1; 32] };

fn key() -> FileKey {
    SealKey::from_bytes(&[7; 32]).unwrap().file_key(&SALT.random)
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

fn blank(index: u64) -> Record {
    Record::Entry(Entry { log_id: id(1, index), payload: Payload::Blank })
}

/// A file of three frames with room after them, and where each frame ends.
fn file(key: &FileKey) -> (Vec<u8>, [usize; 3]) {
    let mut bytes = encode_header(FileKind::Log, 1, &SALT).to_vec();
    let ends = [10, 3000, 700].map(|len| {
        let number = bytes.len() as u64;
        bytes.extend(encode_frame(key, number, &vec![b'x'; len]));
        bytes.len()
    });
    bytes.resize(bytes.len() + 2048, 0);
    (bytes, ends)
}

#[test]
fn whole_frames_are_found_and_opened() {
    let key = key();
    let (bytes, ends) = file(&key);
    let Scan { frames, end, tail } = scan(&bytes);
    assert_eq!((frames.len(), end, tail), (3, ends[2], Tail::Clean));
    let plain = key.open(frames[1].number, &bytes[frames[1].sealed.clone()]).unwrap();
    assert_eq!(*plain, vec![b'x'; 3000]);
    let other = key.open(frames[1].number + 1, &bytes[frames[1].sealed.clone()]);
    assert!(other.is_none(), "a frame does not pass for another");
}

#[test]
fn a_last_frame_that_is_cut_anywhere_is_torn() {
    let (bytes, ends) = file(&key());
    for cut in ends[1] + 1..ends[2] - 8 {
        let mut torn = bytes.clone();
        torn[cut..].fill(0);
        assert_eq!(scan(&torn).tail, Tail::Torn, "cut at {cut}, room reserved");
        torn.truncate(cut);
        assert_eq!(scan(&torn).tail, Tail::Torn, "cut at {cut}, no room reserved");
        assert_eq!(scan(&torn).end, ends[1]);
    }
}

#[test]
fn a_last_frame_that_misses_sectors_is_torn() {
    let (bytes, ends) = file(&key());
    let mut start = ends[1];
    while start < ends[2] {
        let end = (start + 1).next_multiple_of(512).min(ends[2]);
        let mut torn = bytes.clone();
        torn[start..end].fill(0);
        assert_eq!(scan(&torn).tail, Tail::Torn, "sector {start}..{end} was not written");
        start = end;
    }
}

#[test]
fn damage_before_a_whole_frame_is_rot_even_if_it_looks_torn() {
    let (bytes, ends) = file(&key());
    for range in [FILE_HEADER..ends[0], ends[0]..ends[0] + 512, ends[0]..ends[1]] {
        let mut rotten = bytes.clone();
        rotten[range.clone()].fill(0);
        assert!(matches!(scan(&rotten).tail, Tail::Rotten(_)), "{range:?} was lost");
    }
}

#[test]
fn a_flipped_bit_in_the_last_frame_is_rot() {
    let (bytes, ends) = file(&key());
    let padding = bytes[..ends[2]].iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for byte in ends[1]..padding {
        let mut rotten = bytes.clone();
        rotten[byte] ^= 0x10;
        assert!(matches!(scan(&rotten).tail, Tail::Rotten(_)), "byte {byte}");
    }
}

#[test]
fn nothing_makes_a_scan_panic() {
    let (bytes, _) = file(&key());
    let mut chance = swarm_core::id::IdSource::seeded(1);
    for len in 0..200 {
        scan(&bytes[..len]);
    }
    for _ in 0..300 {
        let mut wild = bytes.clone();
        for _ in 0..chance.below(20) {
            let at = chance.below(wild.len() as u64) as usize;
            wild[at] = chance.below(256) as u8;
        }
        wild.truncate(chance.below(wild.len() as u64) as usize);
        scan(&wild);
        let _ = Record::decode_all(&wild);
    }
}

#[test]
fn records_come_back_as_they_were() {
    let nodes = BTreeMap::from([(1, BasicNode::new("a:1")), (2, BasicNode::new("b:2"))]);
    let membership = Membership::new(vec![BTreeSet::from([1])], nodes).unwrap();
    let proposal =
        Proposal::decode(br#"[{"at":"2024-01-01T00:00:00Z","epoch":3,"changes":[]}]"#[..].into());
    let mut vote = Vote::new(4, 2);
    vote.committed = true;
    let entry = |payload| Record::Entry(Entry { log_id: id(3, 9), payload });
    let records = vec![
        Record::Base(Base { raft_id: 7, vote: Some(vote), purged: Some(id(2, 5)) }),
        Record::Base(Base::default()),
        Record::Vote(Vote::new(5, 1)),
        entry(Payload::Blank),
        entry(Payload::Normal(proposal.unwrap())),
        entry(Payload::Membership(membership)),
        Record::TruncateAfter(Some(3)),
        Record::TruncateAfter(None),
        Record::Purged(id(1, 1)),
        Record::Closed,
    ];
    let mut bytes = Vec::new();
    records.iter().for_each(|record| record.encode(&mut bytes));
    assert_eq!(Record::decode_all(&bytes).unwrap(), records);
    let newer = Record::decode_all(&[200]).unwrap_err().to_string();
    assert!(newer.contains("newer version"), "{newer}");
}

#[test]
fn a_replay_follows_truncations_and_purges() {
    let play = |records: Vec<Record>| {
        let mut replay = Replay::default();
        records.into_iter().try_for_each(|record| replay.apply(record))?;
        let memory = replay.finish()?;
        let indexes: Vec<u64> = memory.entries.iter().map(|entry| entry.log_id.index).collect();
        Ok::<_, String>((memory.purged.map(|id| id.index), indexes))
    };
    let entries = |range: std::ops::Range<u64>| range.map(blank);
    let whole = play(entries(0..5).chain([Record::TruncateAfter(Some(2)), blank(3)]).collect());
    assert_eq!(whole, Ok((None, vec![0, 1, 2, 3])));
    let purged = play(entries(0..5).chain([Record::Purged(id(1, 2))]).collect());
    assert_eq!(purged, Ok((Some(2), vec![3, 4])));
    let beyond = play(entries(0..5).chain([Record::Purged(id(1, 9)), blank(10)]).collect());
    assert_eq!(beyond, Ok((Some(9), vec![10])), "a snapshot from a leader skips entries");
    let later = play(entries(7..9).chain([Record::Purged(id(1, 7))]).collect());
    assert_eq!(later, Ok((Some(7), vec![8])), "the purge that removed a segment may come after");
    assert!(play(vec![blank(0), blank(2)]).is_err(), "a hole is refused");
    assert!(play(vec![blank(4)]).is_err(), "a missing beginning is refused");
}

#[tokio::test]
async fn a_segment_goes_that_was_purged_whole_while_it_was_the_last() {
    let (disk, dir) = (Arc::new(SimDisk::default()), Path::new("/sim"));
    let keys = DataKeys::load(disk.clone(), dir, true, None).unwrap();
    let sizes = Sizes { segment: 4 << 10, reserve: 4 << 10 };
    let log = Log::open(disk, dir, keys.clone(), 1, sizes, Box::new(())).unwrap();
    let ring = keys.clone();
    let new_key = move || ring.seal_with(SealKey::from_bytes(&[1; 32]));
    // The new key comes after the purge has been looked at, and before the next segment begins.
    let records = vec![blank(0), blank(1), Record::Purged(id(1, 1))];
    log.write(records, Box::new(move |_| assert!(new_key().unwrap(), "there is a new key")));
    log.close().await;
    assert_eq!(log.oldest_generation(), keys.newest(), "nothing needs the old key");
}
