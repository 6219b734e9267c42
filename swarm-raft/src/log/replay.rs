//! Pure: the state of the log, and how its records lead there.

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};

use crate::record::{Base, Record};
use crate::types::{Entry, LogId, Vote};

/// What the log holds. Entries stay in memory until a snapshot covers them: they share their
/// content with the store's state, and the bytes between two snapshots are bounded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) vote: Option<Vote>,
    /// The last entry that is gone because a snapshot covers it.
    pub(crate) purged: Option<LogId>,
    /// Entries with consecutive indexes.
    pub(crate) entries: VecDeque<Entry>,
}

impl Memory {
    /// The last entry's id, or that of the last one that is gone.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.entries.back().map(|entry| entry.log_id).or(self.purged)
    }

    /// Removes every entry after `index`.
    pub(crate) fn truncate_after(&mut self, index: Option<u64>) {
        let keep = |entry: &Entry| index.is_some_and(|index| entry.log_id.index <= index);
        while self.entries.back().is_some_and(|entry| !keep(entry)) {
            self.entries.pop_back();
        }
    }

    /// Removes every entry up to `id`.
    pub(crate) fn purge(&mut self, id: LogId) {
        self.purged = self.purged.max(Some(id));
        while self.entries.front().is_some_and(|entry| entry.log_id.index <= id.index) {
            self.entries.pop_front();
        }
    }

    /// The entries of a range of indexes, as far as they are here.
    pub(crate) fn range(&self, range: impl RangeBounds<u64>) -> Vec<Entry> {
        let Some(first) = self.entries.front().map(|entry| entry.log_id.index) else {
            return Vec::new();
        };
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let len = self.entries.len();
        let position =
            |index: u64| usize::try_from(index.saturating_sub(first)).map_or(len, |at| at.min(len));
        let (start, end) = (position(start), position(end));
        self.entries.range(start..end.max(start)).cloned().collect()
    }
}

/// Builds the log's state from its records.
#[derive(Default)]
pub(crate) struct Replay {
    pub(crate) memory: Memory,
    /// Whose log it is.
    pub(crate) raft_id: Option<u64>,
}

impl Replay {
    /// Applies the next record.
    ///
    /// # Errors
    /// What is wrong when records contradict each other.
    pub(crate) fn apply(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Base(Base { raft_id, vote, purged }) => {
                self.raft_id = Some(raft_id);
                self.memory.vote = vote;
                if let Some(id) = purged {
                    self.memory.purge(id);
                }
            }
            Record::Vote(vote) => self.memory.vote = Some(vote),
            Record::TruncateAfter(index) => self.memory.truncate_after(index),
            Record::Purged(id) => self.memory.purge(id),
            Record::Closed => {}
            Record::Entry(entry) => return self.push(entry),
        }
        Ok(())
    }

    fn push(&mut self, entry: Entry) -> Result<(), String> {
        let index = entry.log_id.index;
        if let Some(last) = self.memory.entries.back() {
            let expected = last.log_id.index + 1;
            if index != expected {
                return Err(format!("entry {index} stands where {expected} belongs"));
            }
        }
        if self.memory.purged.is_none_or(|purged| index > purged.index) {
            self.memory.entries.push_back(entry);
        }
        Ok(())
    }

    /// The state after the last record.
    ///
    /// # Errors
    /// What is missing when entries between the purged ones and the first one are.
    pub(crate) fn finish(self) -> Result<Memory, String> {
        let expected = self.memory.purged.map_or(0, |purged| purged.index + 1);
        match self.memory.entries.front() {
            Some(first) if first.log_id.index != expected => {
                Err(format!("entries {expected} to {} are missing", first.log_id.index - 1))
            }
            _ => Ok(self.memory),
        }
    }
}
