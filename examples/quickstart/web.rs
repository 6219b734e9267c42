//! The web service of the quickstart's stack, for the process executor: answers every request on
//! `$PORT` with `$GREETING`.

use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;

/// Serves until the process is stopped.
pub(crate) fn serve() -> io::Result<()> {
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    let listener = TcpListener::bind(format!("0.0.0.0:{}", variable("PORT", "8000")))?;
    let greeting = variable("GREETING", "hello");
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut request = [0; 2048];
        let _ = stream.read(&mut request);
        let length = greeting.len() + 1;
        let head =
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        let _ = stream.write_all(format!("{head}{greeting}\n").as_bytes());
    }
    Ok(())
}
