//! Stack files: from the YAML that `docker stack deploy` reads to the objects that it creates.
//!
//! [`Stack::load`] reads version 3 of the compose format (3.0 to 3.13, or none), with variables,
//! anchors, merge keys, environment files and several files laid over each other, in the same way
//! as version 28.2.2 of the docker CLI, quirks included: a stack that works there means the same
//! here. [`Stack::plan`] says what deploying it creates, for a cluster in this process;
//! [`Stack::requests`] says it as requests to a Docker API.
//!
//! ```
//! use swarm_compose::{Environment, Stack};
//!
//! let text = "services: {web: {image: 'nginx:${TAG:-1}', deploy: {replicas: 2}}}";
//! let files = [("stack.yml".into(), text.to_owned())];
//! let stack = Stack::parse(&files, "/", Environment::new(), "shop")?;
//! let plan = stack.plan()?;
//! assert_eq!(plan.services[0].name, "shop_web");
//! assert_eq!(plan.networks[0].name, "shop_default");
//! # Ok::<(), swarm_compose::ComposeError>(())
//! ```
//!
//! The way of a file: `parse` makes a tree with line numbers, `interpolate` substitutes variables
//! in it, `schema` checks it, `decode` turns it into the `model`, `merge` lays files over each
//! other, `convert` makes requests of the result.

mod convert;
mod decode;
mod error;
mod forbidden;
mod interpolate;
mod merge;
mod model;
mod parse;
mod scalar;
mod schema;
mod short;
mod stack;
mod units;
mod value;

pub use convert::{LABEL_IMAGE, LABEL_NAMESPACE};
pub use error::{ComposeError, Place};
pub use interpolate::Environment;
pub use stack::{DeployPlan, ObjectKind, Request, Stack, Warning};
