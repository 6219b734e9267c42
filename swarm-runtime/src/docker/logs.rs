//! A container's output, line by line, from the engine's multiplexed stream.

use std::collections::VecDeque;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters::{LogsOptions, LogsOptionsBuilder};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use swarm_core::executor::{ExecError, ExecErrorKind, LogEntry, LogOptions, LogSource, LogStream};
use swarm_core::model::TaskId;
use swarm_core::time::Timestamp;

use super::DockerExecutor;
use super::engine::{classify, status};

impl DockerExecutor {
    /// The output of a task.
    pub(super) async fn log_stream(
        &self,
        task: TaskId,
        options: LogOptions,
    ) -> Result<LogStream, ExecError> {
        if !options.stdout && !options.stderr {
            return Ok(Box::pin(stream::empty()));
        }
        let id = self.container_of(task).await?;
        // The engine counts the tail before it filters by source.
        let counted = options.tail.filter(|_| options.stdout != options.stderr);
        let Some(count) = counted else { return Ok(self.open_logs(&id, &options)) };

        let past = LogOptions { follow: false, tail: None, ..options.clone() };
        let mut tail = VecDeque::new();
        let mut past = self.open_logs(&id, &past);
        let mut seen = options.since;
        while let Some(entry) = past.try_next().await? {
            seen = Some(entry.time);
            tail.push_back(entry);
            if tail.len() as u64 > count {
                tail.pop_front();
            }
        }
        let tail = stream::iter(tail).map(Ok);
        if !options.follow {
            return Ok(Box::pin(tail));
        }
        let rest = LogOptions { tail: None, since: seen, ..options };
        let rest = self
            .open_logs(&id, &rest)
            .try_filter(move |entry| std::future::ready(seen.is_none_or(|seen| entry.time > seen)));
        Ok(Box::pin(tail.chain(rest)))
    }

    /// The engine's own answer; a refusal is its first item.
    fn open_logs(&self, id: &str, options: &LogOptions) -> LogStream {
        let since = options.since;
        let output = Box::pin(lines(self.docker.logs(id, Some(query(options)))));
        let fresh = move |entry: &LogEntry| since.is_none_or(|since| entry.time >= since);
        let output = output.map_err(refusal);
        Box::pin(output.try_filter(move |entry| std::future::ready(fresh(entry))))
    }
}

fn refusal(error: Error) -> ExecError {
    let kind = match status(&error) {
        Some(501) => ExecErrorKind::Unsupported,
        // The log driver cannot be read: `configured logging driver does not support reading`.
        Some(500) if error.to_string().contains("does not support reading") => {
            ExecErrorKind::Unsupported
        }
        Some(_) => ExecErrorKind::Failed,
        None => ExecErrorKind::Temporary,
    };
    classify(kind, "reading logs", error)
}

fn query(options: &LogOptions) -> LogsOptions {
    let tail = options.tail.map_or("all".to_owned(), |lines| lines.to_string());
    // The engine's client takes whole seconds; what is too early is dropped line by line.
    let since = options.since.map_or(0, |since| since.as_nanos().div_euclid(1_000_000_000));
    LogsOptionsBuilder::new()
        .follow(options.follow)
        .stdout(options.stdout)
        .stderr(options.stderr)
        .since(i32::try_from(since).unwrap_or(i32::MAX))
        .timestamps(true)
        .tail(&tail)
        .build()
}

/// Frames as lines with their times. (The client library has cut a terminal's output, which has
/// no frames, at its line ends.)
fn lines(
    output: impl Stream<Item = Result<LogOutput, Error>>,
) -> impl Stream<Item = Result<LogEntry, Error>> {
    output.map_ok(|frame| match frame {
        LogOutput::StdErr { message } => parse(LogSource::Stderr, &message),
        LogOutput::StdOut { message }
        | LogOutput::StdIn { message }
        | LogOutput::Console { message } => parse(LogSource::Stdout, &message),
    })
}

/// `TIME SPACE DATA`; without a readable time everything is data.
fn parse(source: LogSource, frame: &[u8]) -> LogEntry {
    let space = frame.iter().position(|byte| *byte == b' ');
    let time = space.and_then(|at| std::str::from_utf8(&frame[..at]).ok()?.parse().ok());
    match (time, space) {
        (Some(time), Some(at)) => LogEntry { source, time, data: frame[at + 1..].to_vec() },
        _ => LogEntry { source, time: Timestamp::ZERO, data: frame.to_vec() },
    }
}
