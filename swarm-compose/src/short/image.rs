//! Pure: image references: which are valid, and the form in which they reach the engine.

/// Why a text is no image reference, in the words of Docker's reference library.
pub(crate) type Problem = String;

/// Checks a reference, which may also be an image's id.
pub(crate) fn check(text: &str) -> Result<(), Problem> {
    if is_id(text) || text.strip_prefix("sha256:").is_some_and(is_id) {
        return Ok(());
    }
    normal(text).map(drop)
}

/// The reference as Docker's API client sends it: with a tag, without the parts that only say
/// "Docker Hub". A text that is no reference by name (an id) stays as it is.
pub(crate) fn tagged(text: &str) -> String {
    let Ok(reference) = normal(text) else { return text.to_owned() };
    let mut name = format!("{}/{}", reference.domain, reference.path);
    if reference.domain == HUB {
        reference.path.clone_into(&mut name);
        if let Some(official) = name.strip_prefix(OFFICIAL).filter(|rest| !rest.contains('/')) {
            name = official.to_owned();
        }
    }
    match (reference.tag, reference.digest) {
        (None, None) => format!("{name}:latest"),
        (Some(tag), None) => format!("{name}:{tag}"),
        (None, Some(digest)) => format!("{name}@{digest}"),
        (Some(tag), Some(digest)) => format!("{name}:{tag}@{digest}"),
    }
}

const HUB: &str = "docker.io";
const OFFICIAL: &str = "library/";

struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn normal(text: &str) -> Result<Reference, Problem> {
    if is_id(text) {
        return Err(format!(
            "invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        ));
    }
    let (domain, rest) = split_domain(text);
    let remote = rest.split(':').next().unwrap_or_default();
    if remote.to_lowercase() != remote {
        return Err(format!(
            "invalid reference format: repository name ({remote}) must be lowercase"
        ));
    }
    let invalid = || "invalid reference format".to_owned();
    let (named, digest) = match rest.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (rest.as_str(), None),
    };
    let (path, tag) = match named.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (named, None),
    };
    if !is_domain(&domain)
        || !path.split('/').all(is_component)
        || !tag.is_none_or(is_tag)
        || !digest.is_none_or(is_digest)
    {
        return Err(invalid());
    }
    if domain.len() + 1 + path.len() > 255 {
        return Err("repository name must not be more than 255 characters".to_owned());
    }
    Ok(Reference {
        domain,
        path: path.to_owned(),
        tag: tag.map(str::to_owned),
        digest: digest.map(str::to_owned),
    })
}

/// The registry and the rest. A first part without a dot, a colon or a capital is no registry.
fn split_domain(text: &str) -> (String, String) {
    let (domain, rest) = match text.split_once('/') {
        None => return (HUB.to_owned(), format!("{OFFICIAL}{text}")),
        Some(("index.docker.io", rest)) => (HUB, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.to_lowercase() != first =>
        {
            (first, rest)
        }
        Some(_) => (HUB, text),
    };
    let official = domain == HUB && !rest.contains('/');
    (domain.to_owned(), if official { format!("{OFFICIAL}{rest}") } else { rest.to_owned() })
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(ip) => !ip.is_empty() && ip.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => host.split('.').all(label),
    };
    host && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Lower-case letters and digits, separated by a dot, one or two underscores, or dashes.
fn is_component(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut rest = text.as_bytes();
    loop {
        let end = rest.iter().position(|b| !word(*b)).unwrap_or(rest.len());
        if end == 0 {
            return false;
        }
        rest = &rest[end..];
        rest = match rest {
            [] => return true,
            [b'_', b'_', after @ ..] | [b'.' | b'_', after @ ..] => after,
            [b'-', ..] => {
                let end = rest.iter().position(|b| *b != b'-').unwrap_or(rest.len());
                &rest[end..]
            }
            _ => return false,
        };
    }
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == length && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_reach_the_engine_in_their_short_form_with_a_tag() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, sent) in [
            ("nginx", "nginx:latest"),
            ("docker.io/library/nginx:1", "nginx:1"),
            ("index.docker.io/a/b", "a/b:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a/b:x", "localhost:5000/a/b:x"),
            ("Reg/a", "Reg/a:latest"),
            (&format!("nginx@{digest}"), &format!("nginx@{digest}")),
            (&format!("nginx:1@{digest}"), &format!("nginx:1@{digest}")),
            (&"a".repeat(64), &"a".repeat(64)),
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
            assert_eq!(tagged(text), sent, "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "a b", "a:", "a/", "/a", "a..b", "a___b", "-a/b", "a@sha256:1", "a:b:c"] {
            assert_eq!(check(text), Err("invalid reference format".to_owned()), "{text}");
        }
        let upper = "invalid reference format: repository name (library/Nginx) must be lowercase";
        assert_eq!(check("Nginx"), Err(upper.to_owned()));
    }
}
