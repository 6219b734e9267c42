//! Takes one call: finds its method, checks who calls, and hands it to the service behind it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use swarm_core::protocol::{AgentMessage, ManagerMessage};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::{Status, Streaming};
use tower::service_fn;

use super::authorize::{Method, authorize};
use super::codec::Json;
use super::message::{Empty, IssueRequest, JoinGroup, LogsRequest, RenewRequest, RootCertificate};
use super::raft::{RaftCall, Raw};
use super::service::{Peer, Services, Standing};
use super::status::{from_status, to_status};
use super::{MAX_FROM_MANAGER, MAX_FROM_NODE};
use crate::error::{ApiError, Code};
use crate::identity::{Identity, NodeCertificate};
use crate::manager::logs::TaskLog;

/// Messages to an agent that wait for it to read: more make the sender wait.
const OUTBOUND: usize = 64;

/// The calls of every connection.
#[derive(Clone)]
pub(super) struct Handler {
    services: Arc<Services>,
    cancel: CancellationToken,
}

impl Handler {
    pub(super) fn new(services: Services, cancel: CancellationToken) -> Self {
        Self { services: Arc::new(services), cancel }
    }

    fn admit(&self, request: &Request<Body>) -> Result<(Method, Peer), ApiError> {
        let path = request.uri().path();
        let Some(method) = Method::from_path(path) else {
            let text = format!("this manager has no call {path}: its version may be another one");
            return Err(ApiError::rpc(Code::Unimplemented, text));
        };
        let Some(peer) = request.extensions().get::<Peer>().cloned() else {
            return Err(ApiError::rpc(Code::Unauthenticated, "the caller is not known"));
        };
        self.authorize(method, &peer)?;
        Ok((method, peer))
    }

    /// Whether the caller may make this call now.
    fn authorize(&self, method: Method, peer: &Peer) -> Result<(), ApiError> {
        let node = peer.certificate.as_ref().map(|certificate| certificate.identity.node);
        let standing = |node| self.services.membership.standing(node);
        let standing = node.map_or(Standing::Unknown, standing);
        authorize(method, peer, standing, self.services.clock.now())
    }

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let (method, peer) = match self.admit(&request) {
            Ok(admitted) => admitted,
            Err(refused) => {
                let from = request.extensions().get::<Peer>().map(|peer| peer.remote);
                tracing::debug!(?from, path = request.uri().path(), %refused, "call refused");
                return to_status(refused).into_http();
            }
        };
        let services = self.services.clone();
        match method {
            Method::GetRootCertificate => {
                unary(request, |_: Empty| async move {
                    services.ca.root().await.map(|pem| RootCertificate { pem })
                })
                .await
            }
            Method::IssueCertificate => {
                unary(
                    request,
                    |issue: IssueRequest| async move { services.ca.issue(issue, peer).await },
                )
                .await
            }
            Method::RenewCertificate => {
                unary(request, |renew: RenewRequest| async move {
                    services.ca.renew(renew, identity(&peer)?).await
                })
                .await
            }
            Method::Managers => {
                unary(request, |_: Empty| async move { services.control.managers().await }).await
            }
            Method::Logs => logs(request, services).await,
            Method::JoinGroup => {
                unary(request, |join: JoinGroup| async move {
                    services
                        .group
                        .join(certificate(&peer)?, peer.remote, join)
                        .await
                        .map(|()| Empty {})
                })
                .await
            }
            Method::Raft => raft(request, services, peer).await,
            Method::RaftStream => self.raft_stream(request, peer).await,
            Method::Session => self.session(request, peer).await,
        }
    }

    async fn session(self, request: Request<Body>, peer: Peer) -> Response<Body> {
        let open = service_fn(|inbound: tonic::Request<Streaming<AgentMessage>>| {
            let (handler, peer) = (self.clone(), peer.clone());
            async move {
                let identity = identity(&peer).map_err(to_status)?;
                let inbound = inbound.into_inner().map(|message| message.map_err(from_status));
                let (outbound, queue) = mpsc::channel::<ManagerMessage>(OUTBOUND);
                tokio::spawn(async move {
                    let sessions = &handler.services.sessions;
                    tokio::select! {
                        () = handler.cancel.cancelled() => {}
                        () = peer.retired.cancelled() => {}
                        () = sessions.session(identity, peer.remote, inbound.boxed(), outbound) => {}
                    }
                });
                Ok::<_, Status>(tonic::Response::new(ReceiverStream::new(queue).map(Ok)))
            }
        });
        grpc::<ManagerMessage, AgentMessage>().streaming(open, request).await
    }

    /// Messages of raft for as long as the manager runs and the connection is not retired. Each is
    /// authorised when it comes: a stream must not outlive what refuses its messages.
    async fn raft_stream(self, request: Request<Body>, peer: Peer) -> Response<Body> {
        let open = service_fn(move |inbound: tonic::Request<Streaming<Bytes>>| {
            let (handler, peer) = (self.clone(), peer.clone());
            async move {
                let certificate = certificate(&peer).map_err(to_status)?.clone();
                let group = handler.services.group.clone();
                let (cancel, retired) = (handler.cancel.clone(), peer.retired.clone());
                let over = async move {
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        () = retired.cancelled() => {}
                    }
                };
                let calls = inbound.into_inner().take_until(Box::pin(over)).map(move |bytes| {
                    handler.authorize(Method::RaftStream, &peer)?;
                    RaftCall::decode(bytes.map_err(from_status)?)
                });
                let answers = group.stream(certificate, calls.boxed());
                Ok::<_, Status>(tonic::Response::new(answers.map(|a| a.map_err(to_status))))
            }
        });
        bytes_both_ways().streaming(open, request).await
    }
}

/// For messages of raft.
fn bytes_both_ways() -> Grpc<Raw> {
    Grpc::new(Raw)
        .max_decoding_message_size(MAX_FROM_MANAGER)
        .max_encoding_message_size(MAX_FROM_MANAGER)
}

/// The authorisation admitted none without; this says so to the types.
fn certificate(peer: &Peer) -> Result<&NodeCertificate, ApiError> {
    let certificate = peer.certificate.as_ref();
    certificate.ok_or_else(|| ApiError::rpc(Code::Unauthenticated, "the call needs a certificate"))
}

fn identity(peer: &Peer) -> Result<Identity, ApiError> {
    Ok(certificate(peer)?.identity)
}

fn grpc<Reply, Call>() -> Grpc<Json<Reply, Call>>
where
    Reply: Serialize + Send + 'static,
    Call: DeserializeOwned + Send + 'static,
{
    Grpc::new(Json::default())
        .max_decoding_message_size(MAX_FROM_NODE)
        .max_encoding_message_size(MAX_FROM_MANAGER)
}

/// The output of tasks, line by line.
async fn logs(request: Request<Body>, services: Arc<Services>) -> Response<Body> {
    let open = service_fn(move |call: tonic::Request<LogsRequest>| {
        let LogsRequest { selector, options } = call.into_inner();
        let lines = services.logs.logs(selector, options).map(Ok::<_, Status>);
        async move { Ok::<_, Status>(tonic::Response::new(lines)) }
    });
    grpc::<TaskLog, LogsRequest>().server_streaming(open, request).await
}

/// A message of raft.
async fn raft(request: Request<Body>, services: Arc<Services>, peer: Peer) -> Response<Body> {
    let receive = service_fn(move |call: tonic::Request<Bytes>| {
        let (services, peer) = (services.clone(), peer.clone());
        async move {
            let answer = async {
                let call = RaftCall::decode(call.into_inner())?;
                services.group.receive(certificate(&peer)?, call).await
            };
            answer.await.map(tonic::Response::new).map_err(to_status)
        }
    });
    bytes_both_ways().unary(receive, request).await
}

async fn unary<Call, Reply, F>(
    request: Request<Body>,
    serve: impl FnOnce(Call) -> F,
) -> Response<Body>
where
    Call: DeserializeOwned + Send + 'static,
    Reply: Serialize + Send + 'static,
    F: Future<Output = Result<Reply, ApiError>>,
{
    // tonic calls a unary service once, and its trait cannot say so.
    let mut serve = Some(serve);
    let once = service_fn(move |call: tonic::Request<Call>| {
        let serve = serve.take();
        async move {
            let serve = serve.ok_or_else(|| Status::internal("the call was taken twice"))?;
            serve(call.into_inner()).await.map(tonic::Response::new).map_err(to_status)
        }
    });
    grpc::<Reply, Call>().unary(once, request).await
}

impl tower::Service<Request<Body>> for Handler {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.clone().answer(request);
        Box::pin(async move { Ok(answer.await) }) as Pin<Box<_>>
    }
}
