//! Asks a daemon the same again and again, and tells how often it answered in a second, as JSON:
//! `cargo run --release -p integration-tests --example load_daemon -- SOCKET PATH`.
//!
//! Plain HTTP/1.1 on kept connections, each with a thread: a client that does little itself measures the server.

use std::{
    env,
    error::Error,
    io::{Read, Write},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

const CONNECTIONS: usize = 16;
const LENGTH: Duration = Duration::from_secs(3);

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let usage = "usage: load_daemon SOCKET PATH";
    let mut arguments = env::args().skip(1);
    let (socket, path) = (arguments.next().ok_or(usage)?, arguments.next().ok_or(usage)?);
    let started = Instant::now();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (socket, path) = (socket.clone(), path.clone());
            thread::spawn(move || ask(&socket, &path, started + LENGTH))
        })
        .collect();
    let mut answers = 0;
    for client in clients {
        answers += client.join().map_err(|_| "a client panicked")??;
    }
    let rate = answers as f64 / started.elapsed().as_secs_f64();
    println!("{}", serde_json::json!({ "requests_per_second": rate, "answers": answers }));
    Ok(())
}

/// Asks until the time is up; gives the number of answers.
fn ask(socket: &str, path: &str, until: Instant) -> Result<usize, Failure> {
    let mut stream = UnixStream::connect(socket)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut buffer = vec![0; 64 << 10];
    let mut answers = 0;
    while Instant::now() < until {
        stream.write_all(request.as_bytes())?;
        let mut read = 0;
        while !is_whole(&buffer[..read])? {
            let more = stream.read(&mut buffer[read..])?;
            if more == 0 {
                return Err("the daemon hung up, or its answer is too long".into());
            }
            read += more;
        }
        answers += 1;
    }
    Ok(answers)
}

/// Whether an answer is there with all of its body.
fn is_whole(answer: &[u8]) -> Result<bool, Failure> {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(false) };
    let text = std::str::from_utf8(&answer[..head])?.to_ascii_lowercase();
    if !text.starts_with("http/1.1 200") {
        return Err(text.into());
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.ok_or("an answer without a length")?.trim().parse()?;
    Ok(answer.len() >= head + 4 + length)
}
