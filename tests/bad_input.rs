//! Bad input from outside a whole process: each is answered in words or hung up on, and the
//! manager serves afterwards. What each layer does with it is tested beside the layer.

#[path = "support/machine.rs"]
mod machine;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use machine::{PATIENCE, Swarm, exchange, parse, sleeper};
use serde_json::json;

/// Bytes that look like nothing (a linear congruence, so always the same).
fn garbage(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn refused(swarm: &Swarm, path: &str, body: &str, status: u16, text: &str) {
    let answer = swarm.manager.call("POST", path, body);
    let shown = &body[..body.len().min(80)];
    assert_eq!(answer.status, status, "{path} {shown}: {answer:?}");
    assert!(answer.message().contains(text), "{path} {shown}: {answer:?}");
}

#[test]
fn the_api_answers_nonsense_in_words_and_serves_on() {
    let swarm = Swarm::start(&[]);
    let id = swarm.manager.create("services", &sleeper("web", 1));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let large = json!({ "Name": "big", "Data": "A".repeat(5 << 20) }).to_string();
    let update = format!("/services/{id}/update");
    let web = sleeper("web", 1).to_string();
    for (path, body, status, text) in [
        ("/services/create", "{\"Name\":", 400, "unexpected EOF"),
        ("/services/create", "\u{0}\u{1}\u{2}", 400, "invalid character"),
        ("/services/create", "[1,2,3]", 400, ""),
        ("/services/create", "{\"Name\":7}", 400, ""),
        ("/services/create", &deep, 400, ""),
        ("/services/create", "{} trailing", 400, "unexpected content"),
        ("/secrets/create", &large, 413, "limit"),
        ("/secrets/create", "{\"Name\":\"x\",\"Data\":\"!not base64!\"}", 400, ""),
        (&format!("{update}?version=1"), &web, 500, "update out of sequence"),
        (&format!("{update}?version=-1"), &web, 400, ""),
        (&format!("{update}?version=18446744073709551616"), &web, 400, ""),
        ("/swarm/join", "{\"RemoteAddrs\":[\"x\"],\"JoinToken\":\"garbage\"}", 503, "already part"),
    ] {
        refused(&swarm, path, body, status, text);
    }
    assert_eq!(swarm.manager.call("GET", "/tasks?filters=%7Bbroken", "").status, 400);
    swarm.manager.running("web", 1);
    swarm.manager.assert_no_panic();
}

#[test]
fn members_that_nobody_knows_survive_on_the_disk() {
    let mut swarm = Swarm::start(&[]);
    let mut spec = sleeper("web", 0);
    spec["FromTheFuture"] = json!({ "Deep": [1, { "Er": null }] });
    spec["TaskTemplate"]["ContainerSpec"]["AlsoNew"] = json!("kept");
    let id = swarm.manager.create("services", &spec);
    swarm.manager.kill();
    swarm.manager.start(&[]);
    let read = &swarm.manager.get(&format!("/services/{id}"))["Spec"];
    assert_eq!(read["FromTheFuture"], spec["FromTheFuture"]);
    assert_eq!(read["TaskTemplate"]["ContainerSpec"]["AlsoNew"], "kept");
}

#[test]
fn garbage_on_the_api_socket_hurts_nobody_else() {
    let swarm = Swarm::start(&[]);
    let head = "POST /services/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    for bytes in [
        garbage(1 << 16),
        b"GET\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /%ff%00%0a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_vec(),
        format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)).into_bytes(),
        format!("{head}Content-Length: -5\r\n\r\n").into_bytes(),
        format!("{head}Content-Length: 3\r\nContent-Length: 9\r\n\r\nabc").into_bytes(),
        format!("{head}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n").into_bytes(),
    ] {
        // A server may also hang up while it is still being written to.
        if let Ok(answer) = exchange(&swarm.manager.socket, &bytes)
            && let Ok(answer) = parse(&answer)
        {
            assert!((400..500).contains(&answer.status), "{answer:?}");
        }
        swarm.manager.get("/info");
    }
    // Requests that stop in the middle, from clients that stay.
    let silent: Vec<_> = (0..50)
        .map(|_| {
            let mut stream =
                std::os::unix::net::UnixStream::connect(&swarm.manager.socket).unwrap();
            stream.write_all(format!("{head}Content-Length: 99\r\n\r\n{{").as_bytes()).unwrap();
            stream
        })
        .collect();
    swarm.manager.create("services", &sleeper("web", 1));
    swarm.manager.running("web", 1);
    drop(silent);
    swarm.manager.assert_no_panic();
}

#[test]
fn garbage_on_the_port_for_nodes_hurts_no_session() {
    let swarm = Swarm::start(&["worker1"]);
    let port = format!("{}:2377", swarm.manager.address);
    // The beginning of a TLS hello, with more announced than comes.
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &garbage(200)].concat();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x04\x08\0\0\0\0\0".to_vec();
    let mut open = Vec::new();
    for bytes in [garbage(1 << 16), hello, preface, b"GET / HTTP/1.1\r\n\r\n".to_vec(), Vec::new()]
    {
        for _ in 0..10 {
            let mut stream = TcpStream::connect(&port).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let _ = stream.write_all(&bytes);
            let _ = stream.read(&mut [0; 1024]);
            open.push(stream);
        }
    }
    let mut service = sleeper("web", 2);
    service["TaskTemplate"]["Placement"] = json!({ "Constraints": ["node.role==worker"] });
    swarm.manager.create("services", &service);
    swarm.manager.running("web", 2);
    swarm.nodes_are("ready", 2);
    drop(open);
    swarm.manager.assert_no_panic();
    swarm.workers[0].assert_no_panic();
}

#[test]
fn a_node_with_a_bad_token_is_told_so_and_leaves_no_trace() {
    let swarm = Swarm::start(&[]);
    let real = swarm.manager.get("/swarm")["JoinTokens"]["Worker"].as_str().unwrap().to_owned();
    let (front, secret) = real.rsplit_once('-').unwrap();
    // Another number of the same size: a secret of any digits may be too large to be one.
    let (digits, last) = secret.split_at(secret.len() - 1);
    let wrong = format!("{front}-{digits}{}", if last == "0" { "1" } else { "0" });
    let other_root = format!("SWMTKN-1-{}-{secret}", "1".repeat(50));
    for (token, text) in [
        ("garbage", "invalid join token"),
        ("", "invalid join token"),
        (wrong.as_str(), "A valid join token is necessary"),
        (other_root.as_str(), "fingerprint"),
    ] {
        let host = machine::Host::new(swarm.dir.path(), "worker", "stranger");
        let mut child = Command::new(&host.binary)
            .args(["--executor", "process", "--token", token, "--state-dir"])
            .arg(&host.state)
            .args(["--join", &format!("{}:2377", swarm.manager.address)])
            .args(["--advertise", &host.address])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let deadline = std::time::Instant::now() + PATIENCE;
        while child.try_wait().unwrap().is_none() {
            if std::time::Instant::now() > deadline {
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && !said.contains("panicked"), "{token}: {said}");
        assert!(!said.contains("ApiError"), "an error for people, not for Rust: {said}");
        assert!(said.contains(text), "{token}: {said}");
        assert!(!said.contains(secret), "the token's secret is in the log: {said}");
    }
    assert_eq!(swarm.manager.get("/nodes").as_array().unwrap().len(), 1);
    swarm.manager.assert_no_panic();
}
