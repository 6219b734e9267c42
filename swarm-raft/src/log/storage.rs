//! The log as openraft sees it.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use super::Log;
use crate::record::Record;
use crate::types::{Entry, LogId, Types, Vote};

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.memory().range(range))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.memory().vote)
    }
}

// The trait's promise that writes happen in the order of the calls is kept by the one channel to
// the one writer.
impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        Ok(LogState { last_purged_log_id: self.purged(), last_log_id: self.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.memory().vote = Some(*vote);
        self.write_and_wait(vec![Record::Vote(*vote)]).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.memory().entries.extend(entries.iter().cloned());
        let records = entries.into_iter().map(Record::Entry).collect();
        self.write(records, Box::new(move |result| callback.io_completed(result)));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let index = last.map(|id| id.index);
        self.memory().truncate_after(index);
        self.write_and_wait(vec![Record::TruncateAfter(index)]).await
    }

    /// Does not wait: a purge that a crash forgets is done again.
    async fn purge(&mut self, id: LogId) -> Result<(), io::Error> {
        self.memory().purge(id);
        self.write(vec![Record::Purged(id)], Box::new(|_| {}));
        Ok(())
    }
}
