//! Secrets and configs: those to create, and a service's uses of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::{Body, Namespace, table};
use crate::error::ComposeError;
use crate::model::{CredentialSpec, FileObject, FileReference, Service, Table};
use crate::stack::ObjectKind;

/// The bodies of the requests that create secrets or configs: all of them, used or not. Reads
/// their files.
pub(crate) fn create_objects(
    objects: &Table<FileObject>,
    namespace: Namespace<'_>,
) -> Result<Vec<Json>, ComposeError> {
    let own = objects.iter().filter(|(_, object)| !object.external.external);
    own.map(|(key, object)| create(key, object, namespace)).collect()
}

fn create(key: &str, object: &FileObject, namespace: Namespace<'_>) -> Result<Json, ComposeError> {
    let driver = |name: &str, options| Body::default().with("Name", name).with("Options", options);
    let mut body = Body::default()
        .always("Name", namespace.scope(key, &object.name))
        .always("Labels", namespace.label(&object.labels));
    if object.driver.is_empty() {
        body = body.always("Data", STANDARD.encode(read(object)?));
    } else {
        body = body.with("Driver", driver(&object.driver, table(&object.driver_opts)));
    }
    Ok(body.with("Templating", driver(&object.template_driver, Json::Null)).into())
}

fn read(object: &FileObject) -> Result<Vec<u8>, ComposeError> {
    std::fs::read(&object.file).map_err(|source| {
        let directory = std::path::Path::new(&object.file).is_dir();
        ComposeError::Read {
            place: object.place.clone(),
            operation: if directory { "read" } else { "open" },
            path: object.file.clone().into(),
            source,
        }
    })
}

/// Finds the id of a secret or config by its kind and name.
pub(super) type Lookup<'a> = &'a dyn Fn(ObjectKind, &str) -> Option<String>;

/// A service's uses of secrets or configs, ordered by name, and how each is called.
pub(super) fn refer(
    kind: ObjectKind,
    uses: &[FileReference],
    objects: &Table<FileObject>,
    namespace: Namespace<'_>,
    lookup: Lookup<'_>,
) -> Result<Vec<(String, Json)>, String> {
    let word = kind.word();
    let mut targets = Vec::new();
    let mut references = Vec::new();
    for reference in uses {
        let source = &reference.source;
        let object = objects.get(source).ok_or_else(|| format!("undefined {word} {source:?}"))?;
        let name = namespace.scope(source, &object.name);
        let target = if reference.target.is_empty() { source } else { &reference.target };
        let or_zero = |id: &str| if id.is_empty() { "0".to_owned() } else { id.to_owned() };
        if targets.contains(&target) {
            return Err(format!("duplicate {word} target for {name} not allowed"));
        }
        targets.push(target);
        let file = Body::default()
            .with("Name", target.as_str())
            .with("UID", or_zero(&reference.uid))
            .with("GID", or_zero(&reference.gid))
            .always("Mode", reference.mode.unwrap_or(0o444));
        references.push(self::reference(kind, &name, ("File", file), lookup)?);
    }
    references.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(references)
}

fn reference(
    kind: ObjectKind,
    name: &str,
    (use_name, use_body): (&str, Body),
    lookup: Lookup<'_>,
) -> Result<(String, Json), String> {
    let word = kind.word();
    let id = lookup(kind, name).ok_or_else(|| format!("{word} not found: {name}"))?;
    let (id_key, name_key) = kind.members();
    let body = Body::default().always(use_name, use_body).with(id_key, id).with(name_key, name);
    Ok((name.to_owned(), body.into()))
}

/// A service's uses of configs: as files, and the one that a credential spec names.
pub(super) fn refer_configs(
    service: &Service,
    configs: &Table<FileObject>,
    namespace: Namespace<'_>,
    lookup: Lookup<'_>,
) -> Result<Vec<(String, Json)>, String> {
    let kind = ObjectKind::Config;
    let mut references = refer(kind, &service.configs, configs, namespace, lookup)?;
    let spec = &service.credential_spec.config;
    if !spec.is_empty() {
        let object = configs.get(spec).ok_or_else(|| format!("undefined config {spec:?}"))?;
        let name = namespace.scope(spec, &object.name);
        references.push(reference(kind, &name, ("Runtime", Body::default()), lookup)?);
        references.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
    Ok(references)
}

/// A Windows credential spec: a config by its id, a file or a registry key.
///
/// A config with a name of its own is not found, as in the docker CLI.
pub(super) fn credential_spec(
    spec: &CredentialSpec,
    configs: &[(String, Json)],
    namespace: Namespace<'_>,
) -> Result<Option<Json>, String> {
    let members = [("Config", &spec.config), ("File", &spec.file), ("Registry", &spec.registry)];
    let given: Vec<_> = members.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let quoted = |(name, _): &(&str, &String)| format!("{name:?}");
    match given.as_slice() {
        [] => Ok(None),
        [("Config", key)] => {
            let scoped = namespace.scope(key, "");
            let found = configs.iter().find(|(name, _)| name == *key || *name == scoped);
            let (name, config) = found.ok_or_else(|| {
                format!(
                    "invalid credential spec: spec specifies config {key}, \
                     but no such config can be found"
                )
            })?;
            // Without an id yet, the config goes by its name.
            let id = config.get("ConfigID").cloned().unwrap_or_else(|| name.as_str().into());
            Ok(Some(Body::default().always("Config", id).into()))
        }
        [(name, value)] => Ok(Some(Body::default().always(name, value.as_str()).into())),
        [first, second] => Err(format!(
            "invalid credential spec: cannot specify both {} and {}",
            quoted(first),
            quoted(second)
        )),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(quoted).collect();
            Err(format!(
                "invalid credential spec: cannot specify both {}, and {}",
                first.join(", "),
                quoted(last)
            ))
        }
    }
}
