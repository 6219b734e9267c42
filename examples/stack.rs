//! What a stack file means, without a cluster.
//!
//! ```text
//! stack spec   -c stack.yml [-c more.yml] [--name demo] [--env env.json]   the requests that deploy it
//! stack config -c stack.yml [-c more.yml] [--env env.json]                 the merged file
//! ```
//!
//! Variables come from this process's environment, or from a JSON object of strings.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use swarm_compose::{Environment, ObjectKind, Stack};

#[derive(Parser)]
#[command(about = "What a stack file means, without a cluster")]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Print the requests that deploy the stack, as JSON.
    Spec {
        #[command(flatten)]
        source: Source,
        /// The stack's name.
        #[arg(long, default_value = "demo")]
        name: String,
    },
    /// Print the merged file, as YAML.
    Config {
        #[command(flatten)]
        source: Source,
    },
}

#[derive(Args)]
struct Source {
    /// A stack file; later ones are laid over earlier ones.
    #[arg(short = 'c', long = "compose-file", required = true)]
    files: Vec<PathBuf>,
    /// A JSON object with the variables, instead of this process's environment.
    #[arg(long)]
    env: Option<PathBuf>,
}

type AnyError = Box<dyn std::error::Error>;

impl Source {
    fn load(&self, name: &str) -> Result<Stack, AnyError> {
        let env: Environment = match &self.env {
            Some(file) => serde_json::from_slice(&std::fs::read(file)?)?,
            None => std::env::vars().collect(),
        };
        Ok(Stack::load(&self.files, env, name)?)
    }
}

fn main() -> ExitCode {
    match run(Command::parse().action) {
        Ok(output) => {
            print!("{output}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(action: Action) -> Result<String, AnyError> {
    match action {
        Action::Config { source } => Ok(source.load("config")?.to_yaml()?),
        Action::Spec { source, name } => {
            let stack = source.load(&name)?;
            for warning in stack.warnings() {
                eprintln!("{warning}\n");
            }
            // Without a cluster there are no ids: the kind and the name stand in for one.
            let id = |kind: ObjectKind, name: &str| Some(format!("{}-id:{name}", kind.word()));
            let requests: Vec<_> = stack
                .requests(id)?
                .into_iter()
                .map(|request| serde_json::json!({ "path": request.path(), "body": request.body }))
                .collect();
            Ok(format!("{:#}\n", serde_json::Value::from(requests)))
        }
    }
}
