//! Pure: mounts in short form: `[SOURCE:]TARGET[:OPTIONS]`, and what counts as a path in one.

use crate::model::{BindOptions, ServiceVolume, VolumeOptions};

/// The ways in which the mounts of a host and a container may see each other's changes.
const PROPAGATIONS: [&str; 6] = ["rprivate", "private", "rshared", "shared", "rslave", "slave"];

/// Reads a short form. It does not know the target platform, so one letter before a colon is a
/// Windows drive: a volume with such a name cannot be mounted in short form.
pub(crate) fn parse(text: &str) -> Result<ServiceVolume, String> {
    let mut volume = ServiceVolume::default();
    match text.len() {
        0 => return Err("invalid empty volume spec".to_owned()),
        1 | 2 => text.clone_into(&mut volume.target),
        _ => {
            let parts = split(text);
            let count = parts.len();
            for (index, part) in parts.into_iter().enumerate() {
                add_part(&mut volume, &part, index + 1 == count)
                    .map_err(|problem| format!("invalid spec: {text}: {problem}"))?;
            }
        }
    }
    let kind = if is_path(&volume.source) { "bind" } else { "volume" };
    kind.clone_into(&mut volume.kind);
    Ok(volume)
}

/// The parts between colons, except the colon after a drive letter.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for c in text.chars() {
        match parts.last_mut() {
            Some(part) if c != ':' || is_drive(part) => part.push(c),
            _ => parts.push(String::new()),
        }
    }
    parts
}

fn is_drive(part: &str) -> bool {
    let mut chars = part.chars();
    chars.next().is_some_and(char::is_alphabetic) && chars.next().is_none()
}

fn add_part(volume: &mut ServiceVolume, part: &str, last: bool) -> Result<(), &'static str> {
    if part.is_empty() {
        return Err("empty section between colons");
    }
    if volume.source.is_empty() && !last {
        part.clone_into(&mut volume.source);
    } else if volume.target.is_empty() {
        part.clone_into(&mut volume.target);
    } else if !last {
        return Err("too many colons");
    } else {
        part.split(',').for_each(|option| add_option(volume, option));
    }
    Ok(())
}

/// Options that are unknown, `z` and `cached` among them, have always been ignored.
fn add_option(volume: &mut ServiceVolume, option: &str) {
    match option {
        "ro" => volume.read_only = true,
        "rw" => volume.read_only = false,
        "nocopy" => {
            volume.volume = Some(VolumeOptions { nocopy: true, ..VolumeOptions::default() });
        }
        option if PROPAGATIONS.contains(&option) => {
            volume.bind = Some(BindOptions { propagation: option.to_owned() });
        }
        _ => {}
    }
}

/// Whether a source is a path of the host rather than the name of a volume.
fn is_path(source: &str) -> bool {
    let mut chars = source.chars();
    match (chars.next(), chars.next()) {
        (Some('.' | '/' | '~'), _) => true,
        (Some('\\'), Some('\\')) => true,
        (Some(letter), Some(':')) => letter.is_alphabetic(),
        _ => false,
    }
}

/// Whether a path is absolute on Unix or on Windows: the client may run on the other one.
pub(crate) fn is_absolute(path: &str) -> bool {
    let slash = |b: &u8| matches!(b, b'/' | b'\\');
    match path.as_bytes() {
        [b'/', ..] => true,
        [letter, b':', next, ..] if letter.is_ascii_alphabetic() => slash(next),
        [a, b, c, rest @ ..] if slash(a) && slash(b) && !slash(c) && *c != b'.' => {
            // A server's share needs a server, a share and a path: `\\server\share\`.
            let mut names = rest.split(slash);
            names.next().is_some()
                && names.next().is_some_and(|share| !share.is_empty() && share[0] != b'.')
                && names.next().is_some()
        }
        _ => false,
    }
}

/// A path below `dir`, unless it is absolute, without `.`, `..` and doubled slashes.
pub(crate) fn join(dir: &str, path: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in dir.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let volume = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let ro = if volume.read_only { " ro" } else { "" };
        let bind = volume.bind.map(|bind| format!(" {}", bind.propagation)).unwrap_or_default();
        let nocopy = if volume.volume.is_some_and(|volume| volume.nocopy) { " nocopy" } else { "" };
        format!("{} {} {}{ro}{bind}{nocopy}", volume.kind, volume.source, volume.target)
    }

    #[test]
    fn every_short_form_is_read() {
        for (text, volume) in [
            ("/d", "volume  /d"),
            ("data:/d", "volume data /d"),
            ("data:/d:ro,nocopy", "volume data /d ro nocopy"),
            ("./x:/d:rshared,z", "bind ./x /d rshared"),
            ("~/x:/d:ro,rw", "bind ~/x /d"),
            (r"C:\x:D:\y:ro", r"bind C:\x D:\y ro"),
            (r"\\.\pipe\p:\\.\pipe\p", r"bind \\.\pipe\p \\.\pipe\p"),
            // One letter is taken for a drive.
            ("v:/d", "volume  v:/d"),
            ("v:/d:ro", "bind v:/d ro"),
            ("x", "volume  x"),
        ] {
            assert_eq!(shown(text), volume, "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for (text, problem) in [
            ("", "invalid empty volume spec"),
            (":/x", "invalid spec: :/x: empty section between colons"),
            ("ab:cd:ef:gh", "invalid spec: ab:cd:ef:gh: too many colons"),
        ] {
            assert_eq!(parse(text).unwrap_err(), problem);
        }
    }

    #[test]
    fn paths_are_joined_and_cleaned() {
        assert_eq!(join("/a/b", "../c/./d//e"), "/a/c/d/e");
        assert_eq!(join("/a/b", ""), "/a/b");
        assert_eq!(join("/a", "/x/../y"), "/x/../y");
        for path in ["/a", r"C:\a", "c:/a", r"\\server\share\a"] {
            assert!(is_absolute(path), "{path}");
        }
        for path in ["a", "./a", "C:a", r"\\server\share", r"\\.\pipe"] {
            assert!(!is_absolute(path), "{path}");
        }
    }
}
