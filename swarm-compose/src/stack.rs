//! A stack: loading it from files, and what deploying it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;
use swarm_core::model::{
    ConfigId, ConfigSpec, ContainerSpec, Driver, IpamConfig, IpamOptions, NetworkSpec, SecretId,
    SecretSpec, ServiceSpec,
};

use crate::convert::{self, Namespace};
use crate::decode::{self, Context};
use crate::error::{ComposeError, Place};
use crate::interpolate::{Environment, interpolate};
use crate::model::{Config, Service};
use crate::short::{image, volume};
use crate::value::Node;
use crate::{forbidden, merge, parse, schema};

/// A stack: services, networks, secrets and configs that belong together, read from one or more
/// files. What it holds is checked as far as that is possible without a cluster.
#[derive(Clone, Debug)]
pub struct Stack {
    name: String,
    config: Config,
    warnings: Vec<Warning>,
}

/// Something that is worth saying and no error. Its text is the docker CLI's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// Keys that a service has and Swarm ignores.
    Unsupported(Vec<String>),
    /// Keys that the format has given up, each with the reason.
    Deprecated(BTreeMap<String, &'static str>),
    /// Anything else.
    Note(String),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(keys) => {
                write!(f, "Ignoring unsupported options: {}", keys.join(", "))
            }
            Self::Deprecated(keys) => {
                f.write_str("Ignoring deprecated options:")?;
                keys.iter().try_for_each(|(key, reason)| write!(f, "\n\n{key}: {reason}"))
            }
            Self::Note(text) => f.write_str(text),
        }
    }
}

impl Stack {
    /// Reads a stack from files, of which later ones are laid over earlier ones, with the
    /// variables of `env`. Relative paths in them begin at the directory of the first. The name
    /// begins the names of everything that the stack creates. The file `-` is standard input.
    ///
    /// # Errors
    /// The first thing that is wrong, with its file, line and key.
    pub fn load<P: AsRef<Path>>(
        files: &[P],
        env: Environment,
        name: &str,
    ) -> Result<Self, ComposeError> {
        let read_error = |path: &Path, source| ComposeError::Read {
            place: Place::new(path, 0),
            operation: "open",
            path: path.to_owned(),
            source,
        };
        let first = files.first().ok_or(ComposeError::NoFiles)?.as_ref();
        let absolute = std::path::absolute(first).map_err(|error| read_error(first, error))?;
        let dir = absolute.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
        let mut sources = Vec::new();
        for path in files.iter().map(AsRef::as_ref) {
            let bytes = read(path).map_err(|error| read_error(path, error))?;
            let text = String::from_utf8(bytes).map_err(|_| ComposeError::Yaml {
                place: Place::new(path, 0),
                problem: "yaml: invalid UTF-8".to_owned(),
            })?;
            sources.push((path.to_owned(), text));
        }
        Self::parse(&sources, &dir, env, name)
    }

    /// As [`Stack::load`], for files that are read already: each a name for errors, and a text.
    /// `dir` is the absolute directory where relative paths begin. Environment files are read.
    ///
    /// # Errors
    /// See [`Stack::load`].
    pub fn parse(
        files: &[(PathBuf, String)],
        dir: &str,
        env: Environment,
        name: &str,
    ) -> Result<Self, ComposeError> {
        let blank = |c: char| c.is_whitespace() || c == '"' || c == '\'';
        if name.trim_matches(blank).is_empty() {
            return Err(ComposeError::Name { name: name.to_owned() });
        }
        // Every file is read before any is judged, as in the docker CLI.
        let mut trees = Vec::new();
        for (path, text) in files {
            trees.push((path.as_path(), parse::parse(path, text)?));
        }
        let (_, tree) = trees.first().ok_or(ComposeError::NoFiles)?;
        let version = schema::version_text(tree);
        let dir = volume::join("/", dir);
        let mut warnings = Vec::new();
        let mut config = Config::default();
        for (index, (file, tree)) in trees.iter().enumerate() {
            let layer = load_file(file, tree, &version, &dir, &env, &mut warnings)?;
            match index {
                0 => config = layer,
                _ => merge::merge(&mut config, layer),
            }
        }
        config.version = version;
        warnings.extend(forbidden::warnings(trees.iter().map(|(_, tree)| tree)));
        Ok(Self { name: name.to_owned(), config, warnings })
    }

    /// The stack's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is worth saying although it is no error.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The stack as one file, with everything merged and substituted: `docker stack config`.
    ///
    /// # Errors
    /// If an `x-` section holds what cannot be written.
    pub fn to_yaml(&self) -> Result<String, ComposeError> {
        parse::to_yaml(&self.config)
            .map_err(|problem| ComposeError::Yaml { place: Place::default(), problem })
    }

    /// Names of networks that must exist with scope `swarm` before the stack is deployed.
    #[must_use]
    pub fn external_networks(&self) -> Vec<String> {
        convert::external_networks(&self.config)
    }

    /// The requests with which `docker stack deploy` creates the stack, in its order: networks,
    /// secrets, configs, services. Reads the files of secrets and configs.
    ///
    /// `lookup` finds the id of a secret or config by its name; an empty id leaves the reference
    /// by name alone.
    ///
    /// # Errors
    /// If a service names no valid image or anything that does not exist, if its settings
    /// contradict each other, or if a file cannot be read.
    pub fn requests(
        &self,
        lookup: impl Fn(ObjectKind, &str) -> Option<String>,
    ) -> Result<Vec<Request>, ComposeError> {
        let config = &self.config;
        for (name, service) in &config.services {
            check_image(name, service)?;
        }
        let namespace = Namespace(&self.name);
        let mut requests = Vec::new();
        let mut add = |kind, bodies: Vec<Json>| {
            requests.extend(bodies.into_iter().map(|body| Request { kind, body }));
        };
        add(ObjectKind::Network, convert::create_networks(config, namespace));
        add(ObjectKind::Secret, convert::create_objects(&config.secrets, namespace)?);
        add(ObjectKind::Config, convert::create_objects(&config.configs, namespace)?);
        let mut services = Vec::new();
        for (name, service) in &config.services {
            let body = convert::create_service(name, service, config, namespace, &lookup);
            services.push(body.map_err(|problem| service_error(name, service, &problem))?);
        }
        add(ObjectKind::Service, services);
        Ok(requests)
    }

    /// What deploying the stack creates, as the objects of the model. Services refer to networks,
    /// secrets and configs by name; see [`DeployPlan::bind`].
    ///
    /// # Errors
    /// As [`Stack::requests`], and for words that Swarm does not know.
    pub fn plan(&self) -> Result<DeployPlan, ComposeError> {
        let mut plan = DeployPlan { namespace: self.name.clone(), ..DeployPlan::default() };
        for Request { kind, body } in self.requests(|_, _| Some(String::new()))? {
            let name = body["Name"].as_str().unwrap_or_default().to_owned();
            let added = match kind {
                ObjectKind::Network => {
                    network_spec(body).map(|network| plan.networks.push(network))
                }
                ObjectKind::Secret => {
                    serde_json::from_value(body).map(|secret| plan.secrets.push(secret))
                }
                ObjectKind::Config => {
                    serde_json::from_value(body).map(|config| plan.configs.push(config))
                }
                ObjectKind::Service => {
                    serde_json::from_value(body).map(|service| plan.services.push(service))
                }
            };
            added.map_err(|problem| {
                let key = name.strip_prefix(&format!("{}_", self.name)).unwrap_or(&name);
                match self.config.services.get(key) {
                    Some(service) => service_error(key, service, &problem.to_string()),
                    None => ComposeError::Conflict {
                        place: Place::default(),
                        key: name.clone(),
                        problem: problem.to_string(),
                    },
                }
            })?;
        }
        plan.external_networks = self.external_networks();
        Ok(plan)
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    if path != Path::new("-") {
        return std::fs::read(path);
    }
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
}

fn load_file(
    file: &Path,
    tree: &Node,
    version: &str,
    dir: &str,
    env: &Environment,
    warnings: &mut Vec<Warning>,
) -> Result<Config, ComposeError> {
    let own = schema::version_text(tree);
    if own != version {
        let line = tree.get("version").map_or(0, |node| node.line);
        let problem = format!("version mismatched between two composefiles : {version} and {own}");
        return Err(ComposeError::Version { place: Place::new(file, line), problem });
    }
    forbidden::check(file, tree)?;
    let tree = interpolate(file, tree, env)?;
    let format = schema::check(file, &tree, version)?;
    decode::decode(&tree, &mut Context { file, format, dir, env, warnings })
}

fn check_image(name: &str, service: &Service) -> Result<(), ComposeError> {
    let problem = match service.image.as_str() {
        "" => "no image specified".to_owned(),
        text => match image::check(text) {
            Ok(()) => return Ok(()),
            Err(problem) => problem,
        },
    };
    Err(ComposeError::Service {
        place: service.place.clone(),
        service: name.to_owned(),
        problem: format!(
            "services.{name}.image: invalid image reference for service {name}: {problem}"
        ),
    })
}

fn service_error(name: &str, service: &Service, problem: &str) -> ComposeError {
    ComposeError::Service {
        place: service.place.clone(),
        service: name.to_owned(),
        problem: format!("services.{name}: service {name}: {problem}"),
    }
}

/// A kind of object that a stack creates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// A network.
    Network,
    /// A secret.
    Secret,
    /// A config.
    Config,
    /// A service.
    Service,
}

impl ObjectKind {
    /// The kind in words.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Secret => "secret",
            Self::Config => "config",
            Self::Service => "service",
        }
    }

    /// The members of a service's reference that hold the id and the name.
    pub(crate) const fn members(self) -> (&'static str, &'static str) {
        match self {
            Self::Secret => ("SecretID", "SecretName"),
            _ => ("ConfigID", "ConfigName"),
        }
    }
}

/// A request that creates an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What it creates.
    pub kind: ObjectKind,
    /// Its body.
    pub body: Json,
}

impl Request {
    /// The path to post the body to, below the API's version.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/{}s/create", self.kind.word())
    }
}

/// What deploying a stack creates. The order is the docker CLI's: networks, secrets, configs,
/// services.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeployPlan {
    /// The stack's name, the value of the label
    /// [`com.docker.stack.namespace`](crate::LABEL_NAMESPACE) that everything here has.
    pub namespace: String,
    /// Networks that must exist before.
    pub external_networks: Vec<String>,
    /// Networks to create where they do not exist; the docker CLI never changes one.
    pub networks: Vec<NetworkSpec>,
    /// Secrets to create, or to update if they exist.
    pub secrets: Vec<SecretSpec>,
    /// Configs to create, or to update if they exist.
    pub configs: Vec<ConfigSpec>,
    /// Services to create, or to update if they exist. References hold names, no ids.
    pub services: Vec<ServiceSpec>,
}

impl DeployPlan {
    /// Gives the services' references to secrets and configs their ids.
    ///
    /// # Errors
    /// The secrets and configs that were not found.
    pub fn bind(
        &mut self,
        secret: impl Fn(&str) -> Option<SecretId>,
        config: impl Fn(&str) -> Option<ConfigId>,
    ) -> Result<(), Vec<String>> {
        let mut missing = BTreeSet::new();
        for service in &mut self.services {
            let Some(container) = &mut Arc::make_mut(&mut service.task).container else { continue };
            for reference in &mut container.secrets {
                let name = &reference.secret_name;
                let id = secret(name).or_else(|| {
                    missing.insert(format!("secret not found: {name}"));
                    None
                });
                reference.secret_id = id.unwrap_or(reference.secret_id);
            }
            for reference in &mut container.configs {
                let name = &reference.config_name;
                let id = config(name).or_else(|| {
                    missing.insert(format!("config not found: {name}"));
                    None
                });
                reference.config_id = id.unwrap_or(reference.config_id);
            }
            bind_credential_spec(container, &config);
        }
        if missing.is_empty() { Ok(()) } else { Err(missing.into_iter().collect()) }
    }
}

/// Gives a Windows credential spec the id of its config. The model keeps it as it came.
fn bind_credential_spec(container: &mut ContainerSpec, config: &impl Fn(&str) -> Option<ConfigId>) {
    let Some(mut privileges) = container.extra.get("Privileges").cloned() else { return };
    if let Some(name) = privileges.pointer_mut("/CredentialSpec/Config")
        && let Some(id) = name.as_str().and_then(config)
    {
        *name = id.to_string().into();
        container.extra.insert("Privileges".to_owned(), privileges);
    }
}

/// The network that a create request asks for: the request and the model name things differently.
fn network_spec(body: Json) -> Result<NetworkSpec, serde_json::Error> {
    let pools = body["IPAM"]["Config"].as_array().into_iter().flatten().map(|pool| IpamConfig {
        subnet: pool["Subnet"].as_str().unwrap_or_default().to_owned(),
        ..IpamConfig::default()
    });
    let ipam = body.get("IPAM").map(|ipam| IpamOptions {
        driver: Driver {
            name: ipam["Driver"].as_str().unwrap_or_default().to_owned(),
            ..Driver::default()
        },
        configs: pools.collect(),
        ..IpamOptions::default()
    });
    let options = match body.get("Options") {
        Some(options) => serde_json::from_value(options.clone())?,
        None => BTreeMap::new(),
    };
    Ok(NetworkSpec {
        name: body["Name"].as_str().unwrap_or_default().to_owned(),
        labels: serde_json::from_value(body["Labels"].clone())?,
        driver: Driver {
            name: body["Driver"].as_str().unwrap_or_default().to_owned(),
            options,
            ..Driver::default()
        },
        internal: body["Internal"] == true,
        attachable: body["Attachable"] == true,
        ipam,
        scope: "swarm".to_owned(),
        ..NetworkSpec::default()
    })
}

#[cfg(test)]
mod tests;
