//! Request bodies: JSON as the engine takes it, with the words that Go's decoder refuses with.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::error::{bad, message};
use crate::error::ApiError;

/// Bodies may be this large: what one gRPC message may be between the engine and its manager.
const MAX_BODY: usize = 4 * 1024 * 1024;
/// A client must have sent its body after this long.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// The JSON body of a request.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        let (head, body) = request.into_parts();
        let bytes = read(body).await?;
        if !bytes.is_empty() {
            content_type(&head.headers).map_err(IntoResponse::into_response)?;
        }
        parse(&bytes).map(Json).map_err(|text| bad(text).into_response())
    }
}

async fn read(body: Body) -> Result<Bytes, Response> {
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(message(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request body was cut off or is larger than the limit of 4 MiB",
        )),
        Err(_) => {
            Err(message(StatusCode::REQUEST_TIMEOUT, "the request body did not arrive in time"))
        }
    }
}

fn content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers.get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or(""));
    if value.is_empty() {
        return Err(bad("malformed Content-Type header (): mime: no media type"));
    }
    let kind = value.split(';').next().unwrap_or("").trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(bad(format!("unsupported Content-Type header ({value}): must be 'application/json'")))
}

/// One JSON value and nothing after it.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err("got EOF while reading request body".to_owned());
    }
    let mut values = serde_json::Deserializer::from_slice(bytes);
    // `null` is what a Go client sends for a nil pointer: the zero value.
    let value = T::deserialize(&mut values).map_err(|error| in_gos_words(&error, bytes))?;
    values.end().map_err(|_| "unexpected content after JSON".to_owned())?;
    Ok(value)
}

/// What Go's `encoding/json` says of the same mistake.
pub(super) fn in_gos_words(error: &serde_json::Error, bytes: &[u8]) -> String {
    match error.classify() {
        serde_json::error::Category::Eof => "unexpected EOF".to_owned(),
        serde_json::error::Category::Syntax => syntax(error, bytes),
        // The words of our own types, without the position.
        _ => {
            let text = error.to_string();
            text.rsplit_once(" at line ").map_or(text.clone(), |(text, _)| text.to_owned())
        }
    }
}

fn syntax(error: &serde_json::Error, bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or("");
    let before: Vec<char> = line.chars().take(error.column()).collect();
    let found = before.last().copied().unwrap_or(' ');
    let word: String = {
        let rest = &before[..before.len().saturating_sub(1)];
        let start = rest.iter().rposition(|c| !c.is_ascii_lowercase()).map_or(0, |at| at + 1);
        rest[start..].iter().collect()
    };
    for literal in ["null", "true", "false"] {
        let rest = literal.strip_prefix(&word).filter(|_| !word.is_empty());
        if let Some(expected) = rest.and_then(|rest| rest.chars().next()) {
            return format!(
                "invalid character '{found}' in literal {literal} (expecting '{expected}')"
            );
        }
    }
    format!("invalid character '{found}' looking for beginning of value")
}

#[cfg(test)]
mod tests {
    use super::parse;
    use swarm_core::model::ServiceSpec;

    fn refusal(body: &str) -> String {
        parse::<ServiceSpec>(body.as_bytes()).expect_err("must be refused")
    }

    #[test]
    fn mistakes_are_named_in_gos_words() {
        assert_eq!(refusal(""), "got EOF while reading request body");
        assert_eq!(refusal("{\"Name\":"), "unexpected EOF");
        assert_eq!(refusal("notjson"), "invalid character 'o' in literal null (expecting 'u')");
        assert_eq!(refusal("{} {}"), "unexpected content after JSON");
        assert_eq!(
            refusal("{\"Mode\":{\"Global\":{},\"Replicated\":{}}}"),
            "must specify only one service mode"
        );
    }
}
