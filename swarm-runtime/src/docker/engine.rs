//! Says what the engine's errors mean to an agent, and passes requests through unread.

use bollard::Docker;
use bollard::errors::Error;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::header::HeaderValue;
use http::uri::{PathAndQuery, Uri};
use serde_json::{Value, json};
use swarm_core::executor::{ExecError, ExecErrorKind};

use super::DockerExecutor;

/// The engine's answer to a request that was passed through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawResponse {
    /// The HTTP status.
    pub status: u16,
    /// The body as the engine wrote it; for errors, `{"message": …}`.
    pub body: Bytes,
}

impl DockerExecutor {
    /// The engine's own description of itself: `GET /info`, with every member that it has.
    ///
    /// # Errors
    /// `Temporary` when the engine does not answer.
    pub async fn raw_info(&self) -> Result<Value, ExecError> {
        let response = self.get("/info", None).await?;
        serde_json::from_slice(&response.body).map_err(|error| {
            ExecError::temporary("the engine's /info cannot be read").caused_by(error)
        })
    }

    /// What a registry knows of an image: `GET /distribution/{image}/json`, passed through.
    /// `registry_auth` is the client's `X-Registry-Auth` header.
    ///
    /// # Errors
    /// `Temporary` when the engine does not answer. Errors of the registry are answers.
    pub async fn distribution(
        &self,
        image: &str,
        registry_auth: Option<&str>,
    ) -> Result<RawResponse, ExecError> {
        self.get(&format!("/distribution/{image}/json"), registry_auth).await
    }

    /// Any `GET` of the engine's API: a path without the version, and a query.
    ///
    /// # Errors
    /// `Temporary` when the engine does not answer, `Rejected` for what is not a path. Errors
    /// that the engine reports are answers.
    pub async fn get(
        &self,
        path_and_query: &str,
        registry_auth: Option<&str>,
    ) -> Result<RawResponse, ExecError> {
        let path: PathAndQuery = path_and_query.parse().map_err(|error| {
            ExecError::rejected(format!("{path_and_query:?} is not a path")).caused_by(error)
        })?;
        let docker = with_registry_auth(self.docker.clone(), registry_auth, Some(path));
        // Of the client's calls this one hands out the body unread; the path is replaced.
        match docker.export_image("any").try_collect::<Vec<Bytes>>().await {
            Ok(parts) => Ok(RawResponse { status: 200, body: parts.concat().into() }),
            Err(Error::DockerResponseServerError { status_code, message }) => {
                let body = json!({ "message": message }).to_string().into();
                Ok(RawResponse { status: status_code, body })
            }
            Err(error) => Err(classify(ExecErrorKind::Temporary, "asking the engine", error)),
        }
    }
}

/// The client with the credentials exactly as the user's client encoded them. (The client
/// library would encode them anew, in an alphabet that engines refuse.) `path` replaces the path
/// of every request.
pub(super) fn with_registry_auth(
    docker: Docker,
    auth: Option<&str>,
    path: Option<PathAndQuery>,
) -> Docker {
    let auth = auth.and_then(|auth| HeaderValue::from_str(auth.trim()).ok()).map(|mut value| {
        value.set_sensitive(true);
        value
    });
    if auth.is_none() && path.is_none() {
        return docker;
    }
    docker.with_request_modifier(move |mut request| {
        if let Some(auth) = &auth {
            request.headers_mut().insert("X-Registry-Auth", auth.clone());
        }
        if let Some(path) = &path {
            let mut parts = request.uri().clone().into_parts();
            parts.path_and_query = Some(path.clone());
            *request.uri_mut() = Uri::from_parts(parts).expect("a part was replaced by its like");
        }
        request
    })
}

/// What went wrong while `doing` something. An engine that answered means it: the error is of
/// `kind`. One that did not answer, or not yet, may answer later.
pub(super) fn classify(kind: ExecErrorKind, doing: &str, error: Error) -> ExecError {
    let (kind, message) = match &error {
        Error::DockerResponseServerError { status_code: 503, message } => {
            (ExecErrorKind::Temporary, message.clone())
        }
        Error::DockerResponseServerError { message, .. } => (kind, message.trim().to_owned()),
        other => (ExecErrorKind::Temporary, format!("{doing}: {other}")),
    };
    ExecError { kind, ..ExecError::temporary(message) }.caused_by(error)
}

/// The HTTP status of an engine's refusal.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}
