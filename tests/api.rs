//! The Docker API in process: requests in, stored objects and responses out.

mod support;

#[path = "api/changes.rs"]
mod changes;
#[path = "api/dry_run.rs"]
mod dry_run;
#[path = "api/errors.rs"]
mod errors;
#[path = "api/jobs.rs"]
mod jobs;
#[path = "api/listening.rs"]
mod listening;
#[path = "api/objects.rs"]
mod objects;
#[path = "api/replay.rs"]
mod replay;

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use serde_json::Value;
use support::FakeNode;
use tower::ServiceExt as _;

/// A node behind its API.
struct Api {
    node: Arc<FakeNode>,
}

/// One answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    fn message(&self) -> String {
        self.json()["message"].as_str().expect("a message").to_owned()
    }
}

impl Api {
    async fn still() -> Self {
        Self { node: FakeNode::still().await }
    }

    async fn alive(nodes: usize) -> Self {
        Self { node: FakeNode::alive(nodes).await }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let answer =
            swarm::http::router(self.node.clone()).oneshot(request).await.expect("no failure");
        let (head, body) = answer.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        let body = String::from_utf8_lossy(&body).into_owned();
        Answer { status: head.status, headers: head.headers, body }
    }

    async fn call(&self, method: &str, path: &str, body: impl ToString) -> Answer {
        let body = body.to_string();
        let mut request = Request::builder().method(method).uri(path);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        self.send(request.body(Body::from(body)).expect("a request")).await
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.call("GET", path, "").await;
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.body);
        answer.json()
    }

    /// Creates something and returns its id.
    async fn create(&self, kind: &str, body: impl ToString) -> String {
        let body = body.to_string();
        let answer = self.call("POST", &format!("/{kind}/create"), &body).await;
        assert_eq!(answer.status, 201, "create {kind} {body}: {}", answer.body);
        let json = answer.json();
        let id = json.get("ID").or_else(|| json.get("Id")).and_then(Value::as_str);
        id.expect("an id").to_owned()
    }
}

/// A service's body with these members beside its image.
fn service(name: &str, more: &str) -> String {
    format!(r#"{{"Name":"{name}","TaskTemplate":{{"ContainerSpec":{{"Image":"nginx"}}}}{more}}}"#)
}
