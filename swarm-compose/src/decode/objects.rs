//! Networks, volumes, secrets and configs of a stack.

use serde_json::Value as Json;

use super::fields::{Faults, Fields};
use super::{Context, extensions};
use crate::error::ComposeError;
use crate::model::{External, FileObject, Ipam, Network, Pool, Volume};
use crate::schema::Format;
use crate::short::volume;
use crate::stack::Warning;
use crate::units;
use crate::value::{Node, Value};

pub(super) fn network(
    name: &str,
    node: &Node,
    ctx: &mut Context<'_>,
) -> Result<Network, ComposeError> {
    let faults = Faults::default();
    let fields = Fields::new(Some(node), "", &faults);
    let ipam = fields.section("ipam", "");
    let pool = |item| Pool { subnet: Fields::new(Some(item), "", &faults).text("subnet") };
    let mut network = Network {
        name: fields.text("name"),
        driver: fields.text("driver"),
        driver_opts: fields.table("driver_opts"),
        ipam: Ipam {
            driver: ipam.text("driver"),
            config: ipam.items("config").iter().map(pool).collect(),
        },
        external: external(fields),
        internal: fields.flag("internal"),
        attachable: fields.flag("attachable"),
        labels: fields.table("labels"),
        ..Network::default()
    };
    ctx.judge(node, &format!("networks.{name}"), faults)?;
    if network.external.external {
        external_name("network", name, node, &mut network.external, &mut network.name, ctx)?;
        network.extensions = extensions(node);
    }
    Ok(network)
}

pub(super) fn volume(
    name: &str,
    node: &Node,
    ctx: &mut Context<'_>,
) -> Result<Volume, ComposeError> {
    let faults = Faults::default();
    let fields = Fields::new(Some(node), "", &faults);
    let mut volume = Volume {
        name: fields.text("name"),
        driver: fields.text("driver"),
        driver_opts: fields.table("driver_opts"),
        external: external(fields),
        labels: fields.table("labels"),
        cluster_spec: fields
            .get("x-cluster-spec")
            .map(|node| cluster_spec("", &node.value, &faults)),
        ..Volume::default()
    };
    ctx.judge(node, &format!("volumes.{name}"), faults)?;
    if !volume.external.external {
        return Ok(volume);
    }
    let options = [
        ("driver", !volume.driver.is_empty()),
        ("driver_opts", !volume.driver_opts.is_empty()),
        ("labels", !volume.labels.is_empty()),
    ];
    if let Some((key, _)) = options.iter().find(|(_, given)| *given) {
        let problem = format!(
            "conflicting parameters \"external\" and {key:?} specified for volume {name:?}"
        );
        return Err(ctx.conflict(node, format!("volumes.{name}.{key}"), problem));
    }
    external_name("volume", name, node, &mut volume.external, &mut volume.name, ctx)?;
    volume.extensions = extensions(node);
    volume.extensions.remove("x-cluster-spec");
    Ok(volume)
}

/// A secret or config; `kind` says which.
pub(super) fn file_object(
    kind: &'static str,
    name: &str,
    node: &Node,
    ctx: &mut Context<'_>,
) -> Result<FileObject, ComposeError> {
    let faults = Faults::default();
    let fields = Fields::new(Some(node), "", &faults);
    let mut object = FileObject {
        name: fields.text("name"),
        file: fields.text("file"),
        external: external(fields),
        labels: fields.table("labels"),
        extensions: extensions(node),
        driver: fields.text("driver"),
        driver_opts: fields.table("driver_opts"),
        template_driver: fields.text("template_driver"),
        place: ctx.place(node),
    };
    ctx.judge(node, &format!("{kind}s.{name}"), faults)?;
    if object.external.external {
        external_name(kind, name, node, &mut object.external, &mut object.name, ctx)?;
    } else if object.driver.is_empty() {
        object.file = volume::join(ctx.dir, &object.file);
    } else if !object.file.is_empty() {
        let problem = format!(
            "{kind} {name}: {kind}.driver and {kind}.file conflict; only use {kind}.driver"
        );
        return Err(ctx.conflict(node, format!("{kind}s.{name}.file"), problem));
    }
    Ok(object)
}

/// `external: true`, or a mapping, which implies it.
fn external(fields: Fields<'_>) -> External {
    let name = fields.section("external", "").text("name");
    let external = match fields.get("external").map(|node| &node.value) {
        Some(Value::Bool(external)) => *external,
        Some(_) => true,
        None => false,
    };
    External { name, external }
}

/// Gives an external object its name: the deprecated `external.name`, else `name`, else its key.
fn external_name(
    kind: &str,
    key: &str,
    node: &Node,
    external: &mut External,
    name: &mut String,
    ctx: &mut Context<'_>,
) -> Result<(), ComposeError> {
    if external.name.is_empty() {
        if name.is_empty() {
            key.clone_into(name);
        }
        return Ok(());
    }
    if !name.is_empty() {
        let problem = format!(
            "{kind} {key}: {kind}.external.name and {kind}.name conflict; only use {kind}.name"
        );
        return Err(ctx.conflict(node, format!("{kind}s.{key}.name"), problem));
    }
    // A version that has no `name` yet has no better way.
    if ctx.format >= Format::minor(if kind == "volume" { 4 } else { 5 }) {
        ctx.warnings.push(Warning::Note(format!(
            "{kind} {key}: {kind}.external.name is deprecated in favor of {kind}.name"
        )));
    }
    *name = std::mem::take(&mut external.name);
    Ok(())
}

/// The settings of a cluster volume, with labels as mappings and sizes in bytes. They are printed
/// and otherwise unused: a stack creates no volumes.
fn cluster_spec(key: &str, value: &Value, faults: &Faults) -> Json {
    match (key, value) {
        ("required_bytes" | "limit_bytes", value) => {
            let bytes = units::parse_bytes(&value.to_text());
            let field = if key == "limit_bytes" { "LimitBytes" } else { "RequiredBytes" };
            Json::String(faults.keep(field, bytes).to_string())
        }
        ("segments", Value::List(items)) => {
            let pair = |item: &Node| {
                let text = item.value.to_text();
                let (name, value) = text.split_once('=').unwrap_or((&text, ""));
                (name.to_owned(), Json::from(value))
            };
            items.iter().map(pair).collect()
        }
        (_, Value::Map(map)) => {
            let entry = |(key, node): (&String, &Node)| {
                (key.clone(), cluster_spec(key, &node.value, faults))
            };
            map.iter().map(entry).collect()
        }
        (_, Value::List(items)) => {
            items.iter().map(|item| cluster_spec("", &item.value, faults)).collect()
        }
        (_, value) => value.to_json(),
    }
}
