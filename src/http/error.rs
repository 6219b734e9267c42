//! Errors as Docker's clients read them: a status and `{"message": …}`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::error::{ApiError, Code};

/// JSON with exactly the content type that clients compare with, and Go's final newline.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let mut body = match serde_json::to_vec(value) {
        Ok(body) => body,
        Err(error) => return ApiError::plain(Code::Unknown, error.to_string()).into_response(),
    };
    body.push(b'\n');
    let kind = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, kind)], body).into_response()
}

/// What a handler answers: 200 with JSON.
pub(super) fn ok(value: &impl Serialize) -> Result<Response, ApiError> {
    Ok(json(StatusCode::OK, value))
}

/// An error with a status that no code stands for.
pub(super) fn message(status: StatusCode, message: &str) -> Response {
    #[derive(Serialize)]
    struct Message<'a> {
        message: &'a str,
    }
    json(status, &Message { message })
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.http_status());
        message(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &self.to_string())
    }
}

/// What the engine answers for routes, methods and trailing slashes that it does not know.
pub(super) async fn page_not_found() -> Response {
    message(StatusCode::NOT_FOUND, "page not found")
}

/// A bad request, in the engine's own words.
pub(super) fn bad(message: impl Into<String>) -> ApiError {
    ApiError::plain(Code::InvalidArgument, message)
}

/// The engine's 500.
pub(super) fn internal(message: impl Into<String>) -> ApiError {
    ApiError::plain(Code::Unknown, message)
}
