//! Errors on the wire: gRPC's status on one side, [`ApiError`] on the other.

use std::error::Error;

use tonic::Status;

use crate::error::{ApiError, Code};

/// The code on the wire. `Unknown` carries most of SwarmKit's own errors.
const CODES: [(Code, tonic::Code); 10] = [
    (Code::InvalidArgument, tonic::Code::InvalidArgument),
    (Code::NotFound, tonic::Code::NotFound),
    (Code::AlreadyExists, tonic::Code::AlreadyExists),
    (Code::PermissionDenied, tonic::Code::PermissionDenied),
    (Code::Unauthenticated, tonic::Code::Unauthenticated),
    (Code::FailedPrecondition, tonic::Code::FailedPrecondition),
    (Code::Unimplemented, tonic::Code::Unimplemented),
    (Code::Unavailable, tonic::Code::Unavailable),
    (Code::DeadlineExceeded, tonic::Code::DeadlineExceeded),
    (Code::Unknown, tonic::Code::Unknown),
];

/// As it goes out. Whether the text is prefixed is the receiver's matter.
#[allow(clippy::needless_pass_by_value)]
pub(super) fn to_status(error: ApiError) -> Status {
    let code = CODES.iter().find(|(code, _)| *code == error.code);
    Status::new(code.map_or(tonic::Code::Unknown, |(_, wire)| *wire), error.message)
}

/// As it came in. An error of the connection, and not of the manager, names its cause.
#[allow(clippy::needless_pass_by_value)]
pub(super) fn from_status(status: Status) -> ApiError {
    if let Some(source) = status.source() {
        return unreachable(source);
    }
    let code = CODES.iter().find(|(_, wire)| *wire == status.code());
    ApiError::rpc(code.map_or(Code::Unknown, |(code, _)| *code), status.message())
}

/// A connection that failed, with the innermost reason in words.
pub(super) fn unreachable(error: &(dyn Error + 'static)) -> ApiError {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !texts.iter().any(|earlier| earlier.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    let text = texts.join(": ");
    let refusals = [
        (
            "CertificateExpired",
            "the manager refused this node's certificate: it has expired, or a clock is wrong",
        ),
        (
            "CertificateUnknown",
            "the manager refused this node's certificate: it is of another cluster",
        ),
        ("UnknownCA", "the manager refused this node's certificate: another root signed it"),
        // Another root of the same name, as all roots of swarms have.
        ("DecryptError", "the manager refused this node's certificate: another root signed it"),
        ("BadCertificate", "the manager refused this node's certificate: it is damaged"),
    ];
    if text.contains("fatal alert")
        && let Some((_, refusal)) = refusals.iter().find(|(alert, _)| text.contains(alert))
    {
        return ApiError::rpc(Code::Unauthenticated, *refusal);
    }
    ApiError::rpc(Code::Unavailable, text)
}
