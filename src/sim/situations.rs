//! Pure: situations in which something is known to go wrong, and that chance brings about too seldom:
//! a tenth of the seeds have each. Their dice are their own, so that nothing else is drawn otherwise.

use std::sync::Arc;
use std::time::Duration;

use swarm_core::model::{
    ContainerSpec, EndpointSpec, Placement, PortConfig, PublishMode, ReplicatedMode, ServiceMode,
    ServiceSpec, TaskSpec,
};

use super::dice::Dice;
use super::script::{Action, Request, Script};

/// Adds to a drawn script the situations that its seed has.
pub(super) fn add(script: &mut Script, lasts: Duration) {
    let early = (lasts.as_millis() as u64 / 2).max(3_001);
    for (name, situation) in [("heir", heir as fn(&mut _, &mut _, _)), ("guest", guest)] {
        let mut dice = Dice::new(script.seed, name);
        if dice.percent(10) {
            let begin = dice.millis(3_000, early);
            situation(script, &mut dice, begin);
        }
    }
}

/// A service is removed that takes its time to go, and meanwhile another one, which was there before
/// or not, asks for its port.
fn heir(script: &mut Script, dice: &mut Dice, begin: Duration) {
    let port = PortConfig {
        target_port: 80,
        published_port: 8_090,
        publish_mode: PublishMode::Ingress,
        ..PortConfig::default()
    };
    let endpoint = Some(EndpointSpec { ports: vec![port], ..EndpointSpec::default() });
    let mut old = service("old", "stubborn:1", dice.between(1, 3));
    let container = Arc::make_mut(&mut old.task).container.get_or_insert_default();
    container.stop_grace_period = Some(Duration::from_secs(dice.between(60, 120)).into());
    old.endpoint.clone_from(&endpoint);
    let mut heir = service("heir", "steady:1", dice.between(1, 3));
    ask(script, begin, Request::CreateService(Box::new(old)));
    if dice.percent(50) {
        ask(script, begin, Request::CreateService(Box::new(heir.clone())));
    }
    let removed = begin + dice.millis(20_000, 60_000);
    ask(script, removed, Request::RemoveService("old".to_owned()));
    heir.endpoint = endpoint;
    let asks = removed + dice.millis(1_000, 50_000);
    ask(script, asks, Request::DeployService(Box::new(heir)));
}

/// The node that a service is bound to loses the label that it is known by; another one may get it.
fn guest(script: &mut Script, dice: &mut Dice, begin: Duration) {
    let (place, here) = ("place".to_owned(), Some("here".to_owned()));
    let host = dice.below(script.nodes() as u64) as usize;
    let mut guest = service("guest", "steady:1", dice.between(1, 4));
    let placement =
        Placement { constraints: vec!["node.labels.place==here".to_owned()], ..Default::default() };
    Arc::make_mut(&mut guest.task).placement = Some(placement);
    ask(script, begin, Request::LabelNode(host, place.clone(), here.clone()));
    ask(script, begin, Request::CreateService(Box::new(guest)));
    let lost = begin + dice.millis(20_000, 200_000);
    let value = dice.percent(50).then(|| "there".to_owned());
    ask(script, lost, Request::LabelNode(host, place.clone(), value));
    let other = dice.below(script.nodes() as u64) as usize;
    if other != host {
        let again = lost + dice.millis(1_000, 60_000);
        ask(script, again, Request::LabelNode(other, place, here));
    }
}

fn ask(script: &mut Script, at: Duration, request: Request) {
    script.at(at, Action::Ask(request));
}

fn service(name: &str, image: &str, replicas: u64) -> ServiceSpec {
    let container = ContainerSpec { image: image.to_owned(), ..ContainerSpec::default() };
    ServiceSpec {
        name: name.to_owned(),
        task: Arc::new(TaskSpec { container: Some(container), ..TaskSpec::default() }),
        mode: ServiceMode::Replicated(ReplicatedMode {
            replicas: Some(replicas),
            ..ReplicatedMode::default()
        }),
        ..ServiceSpec::default()
    }
}
