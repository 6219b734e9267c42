//! Networks with a driver that the test plays.

use std::sync::Mutex;

use async_trait::async_trait;
use swarm_core::id::IdSource;
use swarm_core::model::{Driver, NetworkSpec};
use swarm_core::network::{Allocation, Attached, InUse, NetworkView};

use super::*;

/// What a driver was told, and how many of its next calls fail.
#[derive(Default)]
struct Fake {
    name: &'static str,
    syncs: Mutex<Vec<NodeNetwork>>,
    failures: Mutex<Vec<NetError>>,
    address: Option<IpAddr>,
}

impl Fake {
    fn fail(&self) -> Result<(), NetError> {
        self.failures.lock().unwrap().pop().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl NetworkDriver for Fake {
    fn name(&self) -> &str {
        self.name
    }
    fn allocate(&self, _: &NetworkSpec, _: &InUse) -> Result<Allocation, NetError> {
        Ok(Allocation::default())
    }
    async fn sync(&self, want: &NodeNetwork) -> Result<(), NetError> {
        self.syncs.lock().unwrap().push(want.clone());
        self.fail()
    }
    async fn attach(&self, _: &Attachment, _: &Sandbox) -> Result<Attached, NetError> {
        self.fail()?;
        Ok(Attached { addresses: self.address.into_iter().collect() })
    }
    async fn detach(&self, _: TaskId) -> Result<(), NetError> {
        self.fail()
    }
}

fn network(seed: u64, driver: &str, ingress: bool) -> Arc<Network> {
    let driver = Driver { name: driver.into(), ..Default::default() };
    let spec = NetworkSpec { name: "net".into(), driver, ingress, ..Default::default() };
    Arc::new(Network { id: IdSource::seeded(seed).next(), spec, ..Default::default() })
}

fn attachment(network: Arc<Network>) -> Attachment {
    Attachment {
        task: TaskId::NIL,
        network,
        addresses: Vec::new(),
        names: Vec::new(),
        driver_opts: Default::default(),
    }
}

fn want(networks: &[Arc<Network>]) -> NodeNetwork {
    let view = |network: &Arc<Network>| NetworkView {
        network: network.clone(),
        peers: Vec::new(),
        services: Vec::new(),
    };
    NodeNetwork { networks: networks.iter().map(view).collect(), published: Vec::new() }
}

#[tokio::test]
async fn every_driver_gets_its_own_networks() {
    let overlay = Arc::new(Fake { name: "overlay", ..Default::default() });
    let bridge = Arc::new(Fake { name: "bridge", ..Default::default() });
    let networks = Networks::new(vec![overlay.clone(), bridge.clone()]);
    let (default, named) = (network(1, "", false), network(2, "bridge", false));
    networks.sync(&want(&[default.clone(), named.clone()])).await.unwrap();
    assert_eq!(*overlay.syncs.lock().unwrap(), [want(&[default])]);
    assert_eq!(*bridge.syncs.lock().unwrap(), [want(&[named])]);
}

#[tokio::test]
async fn a_failed_sync_is_tried_again_and_attaching_waits_for_the_first_try() {
    let fake = Arc::new(Fake {
        name: "overlay",
        failures: Mutex::new(vec![NetError::System("busy".into())]),
        address: Some([10, 0, 0, 2].into()),
        ..Default::default()
    });
    let networks = Networks::new(vec![fake.clone()]);
    let wanted = network(1, "", false);
    networks.want(want(std::slice::from_ref(&wanted)));
    let places = [attachment(wanted)];
    let sandbox = Sandbox::default();
    let attach = async {
        let addresses = networks.attach(&places, &sandbox).await.unwrap();
        assert!(!fake.syncs.lock().unwrap().is_empty(), "attached before its network was made");
        while fake.syncs.lock().unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        addresses
    };
    let keep = networks.keep();
    let all = async {
        tokio::select! {
            addresses = attach => addresses,
            () = keep => unreachable!("it keeps on"),
        }
    };
    let addresses = tokio::time::timeout(Duration::from_secs(60), all).await.expect("it hangs");
    assert_eq!(addresses, [IpAddr::from([10, 0, 0, 2])]);
}

#[tokio::test]
async fn errors_of_attaching_say_what_to_do() {
    use swarm_core::executor::ExecErrorKind::{Rejected, Temporary};
    let table = [
        (NetError::Missing("no vxlan: use the host network".into()), Rejected),
        (NetError::System("busy".into()), Temporary),
        (NetError::Exhausted("addresses".into()), Temporary),
    ];
    for (error, kind) in table {
        let fake =
            Fake { name: "overlay", failures: Mutex::new(vec![error]), ..Default::default() };
        let networks = Networks::new(vec![Arc::new(fake)]);
        let place = attachment(network(1, "", false));
        let error = networks.attach(&[place], &Sandbox::default()).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.starts_with("attaching to network net failed: "), "{error}");
    }
    let none = Networks::new(Vec::new());
    let place = attachment(network(1, "macvlan", false));
    let error = none.attach(&[place], &Sandbox::default()).await.unwrap_err();
    assert_eq!(error.kind, Rejected);
    assert!(error.message.contains("no network driver \"macvlan\""), "{error}");
    let ingress = attachment(network(1, "", true));
    assert_eq!(none.attach(&[ingress], &Sandbox::default()).await.unwrap(), [] as [IpAddr; 0]);
}
