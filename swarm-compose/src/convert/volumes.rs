//! Pure: a service's mounts.

use serde_json::Value as Json;

use super::{Body, Namespace, table};
use crate::model::{ServiceVolume, Table, Volume};

/// A service's mounts, in the file's order.
pub(super) fn mounts(
    mounts: &[ServiceVolume],
    volumes: &Table<Volume>,
    namespace: Namespace<'_>,
) -> Result<Vec<Json>, String> {
    mounts.iter().map(|mount| self::mount(mount, volumes, namespace)).collect()
}

fn mount(
    mount: &ServiceVolume,
    volumes: &Table<Volume>,
    namespace: Namespace<'_>,
) -> Result<Json, String> {
    check(mount)?;
    let mut source = mount.source.clone();
    let mut options = Body::default();
    match mount.kind.as_str() {
        "volume" | "" if !source.is_empty() => {
            let volume = find(&source, volumes)?;
            source = namespace.scope(&source, &volume.name);
            options = options.always("VolumeOptions", volume_options(mount, volume, namespace));
        }
        "cluster" => {
            // A group of volumes is not of this stack.
            if !source.starts_with("group:") {
                let volume = find(&source, volumes)?;
                source = namespace.scope(&source, &volume.name);
            }
            options = options.always("ClusterOptions", Body::default());
        }
        "image" => {
            let image = mount.image.as_ref();
            let image = image.map(|image| Body::default().with("Subpath", image.subpath.as_str()));
            options = options.maybe("ImageOptions", image);
        }
        "tmpfs" => {
            let tmpfs = mount.tmpfs.as_ref();
            let tmpfs = tmpfs.map(|tmpfs| Body::default().with("SizeBytes", tmpfs.size));
            options = options.maybe("TmpfsOptions", tmpfs);
        }
        "bind" | "npipe" => {
            let bind = mount.bind.as_ref();
            let bind =
                bind.map(|bind| Body::default().with("Propagation", bind.propagation.as_str()));
            options = options.maybe("BindOptions", bind);
        }
        _ => {}
    }
    let mut body = Body::default()
        .with("Type", mount.kind.as_str())
        .with("Source", source)
        .with("Target", mount.target.as_str())
        .with("ReadOnly", mount.read_only)
        .with("Consistency", mount.consistency.as_str());
    body.0.extend(options.0);
    Ok(body.into())
}

fn find<'a>(name: &str, volumes: &'a Table<Volume>) -> Result<&'a Volume, String> {
    volumes.get(name).ok_or_else(|| format!("undefined volume {name:?}"))
}

/// What the engine needs to make a named volume. An external one it does not make.
fn volume_options(mount: &ServiceVolume, volume: &Volume, namespace: Namespace<'_>) -> Body {
    let mut options = Body::default();
    if let Some(given) = &mount.volume {
        options = options.with("NoCopy", given.nocopy).with("Subpath", given.subpath.as_str());
    }
    if volume.external.external {
        return options;
    }
    let driver = Body::default()
        .with("Name", volume.driver.as_str())
        .with("Options", table(&volume.driver_opts));
    options.always("Labels", namespace.label(&volume.labels)).with("DriverConfig", driver)
}

/// Refuses options of another type of mount, and a source that is missing or too much. The
/// order and the gaps (an `npipe` may have cluster options) are the docker CLI's.
fn check(mount: &ServiceVolume) -> Result<(), String> {
    let kind = match mount.kind.as_str() {
        "" => "volume",
        kind => kind,
    };
    let foreign: &[&str] = match kind {
        "volume" => &["images", "tmpfs", "bind", "cluster"],
        "image" => &["volume", "bind", "tmpfs", "cluster"],
        "bind" => &["volume", "image", "tmpfs", "cluster"],
        "tmpfs" => &["bind", "volume", "image", "cluster"],
        "npipe" => &["volume", "image", "tmpfs"],
        "cluster" => &["tmpfs", "bind", "volume"],
        _ => return Err("volume type must be volume, bind, tmpfs, npipe, or cluster".to_owned()),
    };
    match kind {
        "tmpfs" if !mount.source.is_empty() => {
            return Err("invalid tmpfs source, source must be empty".to_owned());
        }
        "bind" | "npipe" | "image" | "cluster" if mount.source.is_empty() => {
            return Err(format!("invalid {kind} source, source cannot be empty"));
        }
        _ => {}
    }
    let given = |options: &str| match options {
        "volume" => mount.volume.is_some(),
        "bind" => mount.bind.is_some(),
        "tmpfs" => mount.tmpfs.is_some(),
        "cluster" => mount.cluster.is_some(),
        _ => mount.image.is_some(),
    };
    match foreign.iter().find(|options| given(options)) {
        Some(options) => Err(format!("{options} options are incompatible with type {kind}")),
        None => Ok(()),
    }
}
