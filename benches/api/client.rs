//! A client of the Docker API: HTTP/1.1 over one kept Unix connection, no more than the bench
//! needs, so that what is measured is the server.

use std::io;
use std::path::Path;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

/// One connection.
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
}

/// What the server answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(socket: &Path) -> io::Result<Self> {
        Ok(Self { stream: BufReader::new(UnixStream::connect(socket).await?) })
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, body: &str) -> io::Result<Answer> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: swarm\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        let (mut status, mut length, mut line) = (0, 0, String::new());
        loop {
            line.clear();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
            } else if let Some((name, value)) = line.split_once(": ")
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.parse().map_err(io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(Answer { status, body })
    }

    /// Creates a service; anything but 201 ends the bench.
    pub(crate) async fn create(&mut self, spec: &str) {
        let answer = self.ask("POST", "/v1.41/services/create", spec).await.expect("an answer");
        let text = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, 201, "POST /services/create: {text}");
    }

    /// Gets a path; anything but 200 ends the bench.
    pub(crate) async fn get(&mut self, path: &str) -> Vec<u8> {
        let answer = self.ask("GET", path, "").await.expect("an answer");
        assert_eq!(answer.status, 200, "GET {path}");
        answer.body
    }
}

/// A service like `docker service create --replicas N --name NAME busybox sleep 600`.
pub(crate) fn service(name: &str, replicas: usize) -> String {
    serde_json::json!({
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": { "Image": "busybox", "Command": ["sleep", "600"] },
            "Resources": { "Limits": {}, "Reservations": {} },
        },
        "Mode": { "Replicated": { "Replicas": replicas } },
    })
    .to_string()
}
