//! `/services/{id}/logs` and `/tasks/{id}/logs`: the output of tasks as a framed stream (moby:
//! `daemon/server/httputils.WriteLogStream`, `pkg/stdcopy`).

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use swarm_core::executor::{LogEntry, LogOptions, LogSource};
use swarm_core::model::{Task, TaskSpec};
use swarm_core::time::Timestamp;

use super::error::internal;
use super::query::Query;
use super::{ApiVersion, Node, control};
use crate::error::ApiError;
use crate::manager::control::{Control, Find as _};
use crate::manager::logs::{LogSelector, TaskLogs};

/// Errors of the stream itself travel on this one, beside standard output and error.
const SYSTEM_ERROR: u8 = 3;

/// `GET /services/{id}/logs`
pub(super) async fn of_service(
    State(node): Node,
    Path(id): Path<String>,
    Extension(api): Extension<ApiVersion>,
    query: Query,
) -> Result<Response, ApiError> {
    let control = control(&*node)?;
    let service = control.view()?.find_service(&id)?;
    let selector = LogSelector::Service(service.id);
    respond(&control, selector, &service.spec.task, api, &query)
}

/// `GET /tasks/{id}/logs`
pub(super) async fn of_task(
    State(node): Node,
    Path(id): Path<String>,
    Extension(api): Extension<ApiVersion>,
    query: Query,
) -> Result<Response, ApiError> {
    let control = control(&*node)?;
    let task = control.view()?.find_task(&id)?;
    respond(&control, LogSelector::Task(task.id), &task.spec, api, &query)
}

fn respond(
    control: &Control,
    selector: LogSelector,
    spec: &TaskSpec,
    api: ApiVersion,
    query: &Query,
) -> Result<Response, ApiError> {
    let options = options(query)?;
    let format = Format {
        framed: !spec.container.as_ref().is_some_and(|container| container.tty),
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
    };
    let kind = match format.framed && api >= ApiVersion(1, 42) {
        true => "application/vnd.docker.multiplexed-stream",
        false => "application/vnd.docker.raw-stream",
    };
    let body = Body::from_stream(format.write(control.logs.logs(selector, options)));
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

fn options(query: &Query) -> Result<LogOptions, ApiError> {
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(internal("Bad parameters: you must choose at least one stream"));
    }
    let tail = match query.get("tail") {
        "" | "all" => None,
        number => Some(
            number
                .parse()
                .map_err(|_| internal("tail value must be a positive integer or \"all\""))?,
        ),
    };
    let since = match query.get("since") {
        "" | "0" => None,
        time => Some(super::events::unix_time(time).ok_or_else(|| {
            internal(format!("invalid since timestamp {time:?}: seconds since 1970 are needed"))
        })?),
    };
    Ok(LogOptions { follow: query.flag("follow"), since, tail, stdout, stderr })
}

/// How lines are written.
#[derive(Clone, Copy)]
struct Format {
    framed: bool,
    timestamps: bool,
    details: bool,
}

impl Format {
    /// The frames of the lines. Errors of single tasks are told at the end, all at once: clients
    /// stop reading at the first one.
    fn write(
        self,
        logs: TaskLogs,
    ) -> impl futures_util::Stream<Item = Result<Bytes, std::convert::Infallible>> + Send {
        let state = (Some(logs), Vec::<String>::new());
        stream::unfold(state, move |(logs, mut errors)| async move {
            let mut logs = logs?;
            while let Some(line) = logs.next().await {
                match line {
                    Err(error) => errors.push(error),
                    Ok((task, entry)) => {
                        return Some((Ok(self.line(&task, &entry)), (Some(logs), errors)));
                    }
                }
            }
            if errors.is_empty() {
                return None;
            }
            let text = format!(
                "Error grabbing logs: rpc error: code = Unknown desc = warning: incomplete log stream. some logs could not be retrieved for the following reasons: {}\n",
                errors.join(", ")
            );
            Some((Ok(self.frame(SYSTEM_ERROR, text.as_bytes())), (None, Vec::new())))
        })
    }

    fn line(self, task: &Task, entry: &LogEntry) -> Bytes {
        let mut payload = Vec::with_capacity(entry.data.len() + 160);
        if self.timestamps {
            payload.extend_from_slice(fixed_width(entry.time).as_bytes());
            payload.push(b' ');
        }
        if self.details {
            let node = task.node_id.map(|node| node.to_string()).unwrap_or_default();
            let (service, id) = (task.service_id, task.id);
            let context = format!(
                "com.docker.swarm.node.id={node},com.docker.swarm.service.id={service},com.docker.swarm.task.id={id} "
            );
            payload.extend_from_slice(context.as_bytes());
        }
        payload.extend_from_slice(&entry.data);
        let stream = match entry.source {
            LogSource::Stdout => 1,
            LogSource::Stderr => 2,
        };
        self.frame(stream, &payload)
    }

    fn frame(self, stream: u8, payload: &[u8]) -> Bytes {
        if !self.framed {
            return Bytes::copy_from_slice(payload);
        }
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut frame = Vec::with_capacity(8 + payload.len());
        frame.extend_from_slice(&[stream, 0, 0, 0]);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(payload);
        frame.into()
    }
}

/// RFC 3339 with all nine digits.
fn fixed_width(time: Timestamp) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(time.as_nanos())) {
        Ok(time) => format!("{time:.9}"),
        Err(_) => time.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn lines_are_framed_and_errors_come_last() {
        let entry = LogEntry {
            source: LogSource::Stderr,
            time: Timestamp::from_secs(1),
            data: b"hi\n".to_vec(),
        };
        let lines: TaskLogs = Box::pin(stream::iter(vec![
            Err("task x: gone".to_owned()),
            Ok((Arc::new(Task::default()), entry)),
        ]));
        let format = Format { framed: true, timestamps: true, details: false };
        let frames: Vec<_> =
            format.write(lines).map(|frame| frame.expect("never fails")).collect().await;
        assert_eq!(&frames[0][..], b"\x02\0\0\0\0\0\0\x221970-01-01T00:00:01.000000000Z hi\n");
        assert_eq!(frames[1][0], SYSTEM_ERROR);
        assert_eq!(frames.len(), 2);
    }
}
