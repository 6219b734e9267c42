//! What every request meets before its route, and every response after it: the version prefix
//! and the engine's headers.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use tower::ServiceExt as _;

use super::error::bad;
use crate::error::ApiError;

/// The newest version of Docker's API that is served: 1.50.
pub const MAX_API_VERSION: ApiVersion = ApiVersion(1, 50);
/// The oldest one: 1.24.
pub const MIN_API_VERSION: ApiVersion = ApiVersion(1, 24);

/// A version of Docker's API, as requests carry it in their path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(pub u32, pub u32);

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The routes behind an optional `/v1.NN`. Handlers find the [`ApiVersion`] among the request's
/// extensions.
pub(super) fn versioned(routes: Router) -> Router {
    Router::new().fallback(dispatch).with_state(routes)
}

async fn dispatch(State(routes): State<Router>, mut request: Request) -> Response {
    let mut response = match split(request.uri()) {
        Err(error) => error.into_response(),
        Ok((uri, version)) => {
            if let Some(uri) = uri {
                *request.uri_mut() = uri;
            }
            request.extensions_mut().insert(version);
            match routes.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
    };
    let server = format!("Docker/{} (linux)", env!("CARGO_PKG_VERSION"));
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("api-version", &MAX_API_VERSION.to_string());
    set("docker-experimental", "false");
    set("ostype", "linux");
    set("server", &server);
    response
}

/// The path without its version prefix (if it has one), and the version.
fn split(uri: &Uri) -> Result<(Option<Uri>, ApiVersion), ApiError> {
    let Some((version, rest)) = prefix(uri.path()) else { return Ok((None, MAX_API_VERSION)) };
    if version > MAX_API_VERSION {
        return Err(bad(format!(
            "client version {version} is too new. Maximum supported API version is {MAX_API_VERSION}"
        )));
    }
    if version < MIN_API_VERSION {
        return Err(bad(format!(
            "client version {version} is too old. Minimum supported API version is {MIN_API_VERSION}, please upgrade your client to a newer version"
        )));
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let uri = format!("{rest}{query}").parse().map_err(|_| bad("malformed request target"))?;
    Ok((Some(uri), version))
}

fn prefix(path: &str) -> Option<(ApiVersion, &str)> {
    let rest = path.strip_prefix("/v")?;
    let (version, _) = rest.split_once('/')?;
    let (major, minor) = version.split_once('.')?;
    let version_of = ApiVersion(major.parse().ok()?, minor.parse().ok()?);
    Some((version_of, &rest[version.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_optional_and_bounded() {
        let of = |path: &str| split(&path.parse().expect("test path"));
        assert_eq!(of("/info"), Ok((None, MAX_API_VERSION)));
        let stripped = of("/v1.41/services/a%2Fb?x=1").unwrap();
        assert_eq!(stripped, (Some("/services/a%2Fb?x=1".parse().unwrap()), ApiVersion(1, 41)));
        assert_eq!(
            of("/v1.99/info").unwrap_err().message,
            "client version 1.99 is too new. Maximum supported API version is 1.50"
        );
        assert!(
            of("/v1.23/info").unwrap_err().message.starts_with("client version 1.23 is too old.")
        );
        assert_eq!(of("/volumes"), Ok((None, MAX_API_VERSION)));
    }
}
