//! What the API does with requests that are slow, large or too many.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use integration_tests::{
    Installation, eventually,
    served::{Served, exchange, head, over_socket},
};

/// Heads that do not end, as slow-loris clients send them, connections on which nothing comes, and bodies that do not.
#[test]
fn slow_requests_are_cut_off() {
    let it = Installation::new();
    let served = Served::with_port(&it);
    let body = head(&served, "POST /v1/environments", 10);
    std::thread::scope(|scope| {
        for start in ["", "GET /v1/version HTTP/1.1\r\nHost: localhost\r\nX-Slow: "] {
            let address = &served.address;
            scope.spawn(move || {
                let mut stream = TcpStream::connect(address).expect("a connection");
                stream.set_read_timeout(Some(Duration::from_secs(90))).expect("a limit");
                stream.write_all(start.as_bytes()).expect("a beginning");
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).expect("the end of the connection");
                assert!(!rest.starts_with(b"HTTP/1.1 2"), "{rest:?}");
            });
        }
        scope.spawn(|| served.send(&body).is_refused(408, "body-too-slow"));
    });
}

#[test]
fn large_requests_are_refused() {
    let it = Installation::new();
    let served = Served::with_port(&it);
    let long = format!("GET /v1/version HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", "x".repeat(64 << 10));
    assert_eq!(served.send(&long).status, 431);
    let send = |line: &str, length: usize| served.send(&(head(&served, line, length) + &" ".repeat(length)));
    send("POST /v1/environments", 2 << 20).is_refused(413, "body-too-large");
    let file = "PUT /v1/environments/dev/dags/files/x.py?mode=create";
    send(file, 2 << 20).is_refused(404, "environment-not-found");
    send(file, 5 << 20).is_refused(413, "body-too-large");
    let chunked = head(&served, "POST /v1/environments", 0).replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 19, " ".repeat(1 << 19));
    served.send(&(chunked + &chunk.repeat(4) + "0\r\n\r\n")).is_refused(413, "body-too-large");
}

#[test]
fn too_many_concurrent_requests_are_refused() {
    let it = Installation::new();
    let served = Served::with_port(&it);
    let waiting = head(&served, "POST /v1/environments", 10);
    let open = |request: &str| {
        let mut stream = TcpStream::connect(&served.address).expect("a connection");
        stream.write_all(request.as_bytes()).expect("a request");
        stream
    };
    let list = "GET /v1/environments HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let health = list.replace("environments", "health");
    // The daemon gives up on each in time; what counts is that enough of them wait at once.
    let mut held = Vec::new();
    let refused = eventually("too many requests", || {
        held.extend((0..128).map(|_| open(&waiting)));
        Some(over_socket(&it, list)).filter(|answer| answer.status != 200)
    });
    refused.is_refused(503, "overloaded");
    assert!(refused.head.contains("retry-after: 1"), "{refused:#?}");
    over_socket(&it, &health).is_answered();
    drop(held);

    // No more connections are served than a listener may have; the next one is when another has ended.
    let (held, mut next) = eventually("too many connections", || {
        let held: Vec<_> = (0..512).map(|_| open("")).collect();
        let mut next = open("GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        next.set_read_timeout(Some(Duration::from_millis(300))).expect("a limit");
        let early = next.read(&mut [0; 1]);
        early.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock).then_some((held, next))
    });
    over_socket(&it, &health).is_answered();
    drop(held);
    next.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    exchange(&mut next, "").is_answered();
    over_socket(&it, list).is_answered();
}
