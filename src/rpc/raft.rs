//! Raft's messages between managers: bytes that mean nothing here, over the managers' mutual TLS.

use std::collections::BTreeMap;
use std::future::ready;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use http::uri::PathAndQuery;
use swarm_raft::{LinkError, Message, MessageKind, Peer, RaftLink};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use super::MAX_FROM_MANAGER;
use super::authorize::Method;
use super::client::channel;
use super::status::from_status;
use crate::error::{ApiError, Code};
use crate::identity::Credentials;

/// One message on its way. It names both ends: an address may have been another manager's.
#[derive(Clone)]
pub struct RaftCall {
    /// The raft id of the manager that sends it.
    pub from: u64,
    /// The raft id of the manager that it is for.
    pub to: u64,
    /// The message.
    pub message: Message,
}

impl RaftCall {
    pub(super) fn encode(&self) -> Bytes {
        let Message { kind, body } = &self.message;
        let name = kind.as_str().as_bytes();
        let mut bytes = BytesMut::with_capacity(17 + name.len() + body.len());
        bytes.put_u64_le(self.from);
        bytes.put_u64_le(self.to);
        bytes.put_u8(u8::try_from(name.len()).expect("names are short"));
        bytes.put_slice(name);
        bytes.put_slice(body);
        bytes.freeze()
    }

    /// Reads what came.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] for bytes that are no message, or one of a kind that this version
    /// does not know.
    pub(super) fn decode(mut bytes: Bytes) -> Result<Self, ApiError> {
        let bad = || ApiError::rpc(Code::InvalidArgument, "malformed message of raft");
        if bytes.len() < 17 {
            return Err(bad());
        }
        let (from, to, name) = (bytes.get_u64_le(), bytes.get_u64_le(), bytes.get_u8());
        if bytes.len() < usize::from(name) {
            return Err(bad());
        }
        let name = bytes.split_to(name.into());
        let kind = std::str::from_utf8(&name).ok().and_then(MessageKind::from_name);
        let kind = kind.ok_or_else(|| {
            let text = format!("a message of raft of another version: {:?}", name.as_ref());
            ApiError::rpc(Code::Unimplemented, text)
        })?;
        Ok(Self { from, to, message: Message { kind, body: bytes } })
    }
}

/// Carries raft's messages to other managers, over one connection to each.
pub struct RpcLink {
    raft_id: u64,
    credentials: Arc<Credentials>,
    connections: Mutex<BTreeMap<String, Grpc<Channel>>>,
}

impl RpcLink {
    /// The link of the manager with this id and these credentials.
    #[must_use]
    pub fn new(raft_id: u64, credentials: Arc<Credentials>) -> Self {
        Self { raft_id, credentials, connections: Mutex::default() }
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<String, Grpc<Channel>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connection(&self, addr: &str) -> Result<Grpc<Channel>, ApiError> {
        if let Some(open) = self.connections().get(addr) {
            return Ok(open.clone());
        }
        let opened = Grpc::new(channel(addr, self.credentials.client_config()?).await?)
            .max_decoding_message_size(MAX_FROM_MANAGER)
            .max_encoding_message_size(MAX_FROM_MANAGER);
        self.connections().insert(addr.to_owned(), opened.clone());
        Ok(opened)
    }
}

impl RpcLink {
    /// A connection that takes a call.
    async fn ready(&self, peer: &Peer) -> Result<Grpc<Channel>, LinkError> {
        let connected = self.connection(&peer.address).await;
        let mut channel = connected.map_err(|error| unreachable(peer, error.message))?;
        if let Err(error) = channel.ready().await {
            self.connections().remove(&peer.address);
            return Err(unreachable(peer, error.to_string()));
        }
        Ok(channel)
    }

    async fn open(
        &self,
        peer: &Peer,
        messages: BoxStream<'static, Message>,
    ) -> Result<Streaming<Bytes>, LinkError> {
        let mut channel = self.ready(peer).await?;
        let (from, to) = (self.raft_id, peer.raft_id);
        let calls = messages.map(move |message| RaftCall { from, to, message }.encode());
        let path = PathAndQuery::from_static(Method::RaftStream.path());
        match channel.streaming(tonic::Request::new(calls), path, Raw).await {
            Ok(answers) => Ok(answers.into_inner()),
            Err(status) => Err(self.failure(peer, status)),
        }
    }

    /// What a call has failed of. A connection that is no use any more is given up.
    fn failure(&self, peer: &Peer, status: Status) -> LinkError {
        let undelivered = was_refused(&status);
        let error = from_status(status);
        match error.code {
            Code::Unavailable => {
                self.connections().remove(&peer.address);
                if undelivered {
                    unreachable(peer, error.message)
                } else {
                    LinkError::Unanswered(error.message)
                }
            }
            // This manager's certificate of then has been retired: with the present one.
            Code::Unauthenticated => {
                self.connections().remove(&peer.address);
                unreachable(peer, error.message)
            }
            Code::InvalidArgument => LinkError::Malformed(error.message),
            _ => LinkError::Refused(error.message),
        }
    }
}

fn unreachable(peer: &Peer, reason: String) -> LinkError {
    let Peer { raft_id, address } = peer.clone();
    LinkError::Unreachable { raft_id, address, reason }
}

#[async_trait]
impl RaftLink for RpcLink {
    async fn call(&self, peer: &Peer, message: Message) -> Result<Bytes, LinkError> {
        let mut channel = self.ready(peer).await?;
        let call = RaftCall { from: self.raft_id, to: peer.raft_id, message }.encode();
        let path = PathAndQuery::from_static(Method::Raft.path());
        let answer = channel.unary(tonic::Request::new(call), path, Raw).await;
        answer.map(Response::into_inner).map_err(|status| self.failure(peer, status))
    }

    fn stream<'a>(
        &'a self,
        peer: &Peer,
        messages: BoxStream<'static, Message>,
    ) -> BoxStream<'a, Result<Bytes, LinkError>> {
        let peer = peer.clone();
        let answers = async move {
            match self.open(&peer, messages).await {
                Ok(answers) => {
                    let failure = move |status| self.failure(&peer, status);
                    answers.map_err(failure).left_stream()
                }
                Err(error) => stream::once(ready(Err(error))).right_stream(),
            }
        };
        answers.flatten_stream().boxed()
    }
}

/// Whether the connection was refused, so that nothing can have been delivered.
fn was_refused(status: &Status) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(status);
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        next = error.source();
    }
    false
}

/// Bytes as they are, inside gRPC's frames.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_names_both_ends_and_damage_is_refused() {
        let message = Message { kind: MessageKind::Vote, body: Bytes::from_static(b"ballot") };
        let bytes = RaftCall { from: 7, to: u64::MAX, message }.encode();
        let read = RaftCall::decode(bytes.clone()).unwrap();
        assert_eq!((read.from, read.to, read.message.kind), (7, u64::MAX, MessageKind::Vote));
        assert_eq!(read.message.body, "ballot");
        for cut in 0..bytes.len() - "ballot".len() {
            assert!(RaftCall::decode(bytes.slice(..cut)).is_err(), "{cut} bytes");
        }
        let mut other = bytes.to_vec();
        other[18] = b'x';
        let refused = RaftCall::decode(other.into()).err().unwrap();
        assert_eq!(refused.code, Code::Unimplemented);
    }
}
