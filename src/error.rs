//! The error of every call that a client makes: a gRPC code, as SwarmKit gives it, and a text.

use std::fmt;

/// gRPC's codes, as far as Swarm uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request makes no sense. HTTP 400.
    InvalidArgument,
    /// The object does not exist. HTTP 404.
    NotFound,
    /// The name is taken. HTTP 409.
    AlreadyExists,
    /// The caller may not do that. HTTP 403.
    PermissionDenied,
    /// The caller is not known. HTTP 401.
    Unauthenticated,
    /// The state does not allow it. HTTP 400.
    FailedPrecondition,
    /// Not a feature of this version. HTTP 501.
    Unimplemented,
    /// Not now. HTTP 503.
    Unavailable,
    /// Not in time. HTTP 500.
    DeadlineExceeded,
    /// Anything else, `update out of sequence` among it. HTTP 500.
    Unknown,
}

impl Code {
    /// The name as gRPC prints it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "InvalidArgument",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::PermissionDenied => "PermissionDenied",
            Self::Unauthenticated => "Unauthenticated",
            Self::FailedPrecondition => "FailedPrecondition",
            Self::Unimplemented => "Unimplemented",
            Self::Unavailable => "Unavailable",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::Unknown => "Unknown",
        }
    }

    /// The HTTP status that Docker's engine maps it to.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition => 400,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::NotFound => 404,
            Self::AlreadyExists => 409,
            Self::Unimplemented => 501,
            Self::Unavailable => 503,
            Self::DeadlineExceeded | Self::Unknown => 500,
        }
    }
}

/// A refused call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// What kind.
    pub code: Code,
    /// The text after the prefix.
    pub message: String,
    /// Whether the text reaches clients behind `rpc error: code = … desc = `: so for everything
    /// that SwarmKit's control API answers, not for what the engine answers itself.
    pub prefixed: bool,
}

impl ApiError {
    /// An error as SwarmKit's control API gives it: prefixed.
    #[must_use]
    pub fn rpc(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), prefixed: true }
    }

    /// An error as the engine gives it: the bare text.
    #[must_use]
    pub fn plain(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), prefixed: false }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefixed {
            write!(f, "rpc error: code = {} desc = ", self.code.as_str())?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}
