//! Pure: the grammar of image references (distribution/reference).

/// Whether a text names an image as `docker run` takes it: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`
/// (distribution/reference: `ParseNormalizedNamed`).
///
/// ```
/// use swarm_core::model::validate::is_image_reference;
/// assert!(is_image_reference("nginx") && is_image_reference("10.99.0.1:5000/a/b:v2"));
/// assert!(!is_image_reference("BAD//image") && !is_image_reference("nginx:"));
/// ```
#[must_use]
pub fn is_image_reference(text: &str) -> bool {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    let last_slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[last_slash..].find(':') {
        Some(colon) => (&rest[..last_slash + colon], Some(&rest[last_slash + colon + 1..])),
        None => (rest, None),
    };
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if is_host_like(host) => (Some(host), path),
        _ => (None, name),
    };
    let anonymous = host.is_none() && path.len() == 64 && path.chars().all(is_lower_hex);
    !anonymous
        && host.is_none_or(is_host)
        && path.len() <= 255
        && path.split('/').all(is_path_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
}

fn is_host_like(text: &str) -> bool {
    text == "localhost" || text.contains(['.', ':']) || text.chars().any(|c| c.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host_ok = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(label),
    };
    host_ok && port.is_none_or(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_digit()))
}

/// `[a-z0-9]+` runs, separated by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = text.split(alnum).filter(|separator| !separator.is_empty());
    text.starts_with(alnum)
        && text.ends_with(alnum)
        && separators
            .into_iter()
            .all(|s| matches!(s, "." | "_" | "__") || s.chars().all(|c| c == '-'))
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(word)
        && text.len() <= 128
        && text.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

fn is_digest(text: &str) -> bool {
    let hex_length = |algorithm| match algorithm {
        "sha256" => Some(64),
        "sha384" => Some(96),
        "sha512" => Some(128),
        _ => None,
    };
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        hex_length(algorithm) == Some(hex.len()) && hex.chars().all(is_lower_hex)
    })
}

fn is_lower_hex(c: char) -> bool {
    c.is_ascii_digit() || ('a'..='f').contains(&c)
}
