//! Asks a lot of a server and tells, as a JSON object of seconds, how long it took:
//! `MODAL_SERVER_URL=… MODAL_TOKEN_SECRET=… cargo run --release -p modal-client --example load -- APP FUNCTION`.
//! The function takes a number.

use std::{env, error::Error, sync::Arc, time::Instant};

use modal_client::{Client, File, Token};
use tokio::task::JoinSet;

/// Requests of each kind.
const COUNT: usize = 1_000;
/// Requests at a time.
const IN_FLIGHT: usize = 32;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let usage = "usage: load APP FUNCTION";
    let mut arguments = env::args().skip(1);
    let (app, function) = (arguments.next().ok_or(usage)?, arguments.next().ok_or(usage)?);
    let token = Token { id: env::var("MODAL_TOKEN_ID")?, secret: env::var("MODAL_TOKEN_SECRET")? };
    let client = Client::connect(&env::var("MODAL_SERVER_URL")?, &token).await?;

    let dict = client.dict("load").await?;
    let written = dict.clone();
    let puts = timed(move |n| {
        let dict = written.clone();
        async move { Ok(dict.put(&format!("key-{n}"), &n).await?) }
    });
    let puts = puts.await?;
    let gets = timed(move |n| {
        let dict = dict.clone();
        async move {
            let found: Option<usize> = dict.get(&format!("key-{n}")).await?;
            if found == Some(n) { Ok(()) } else { Err(format!("key-{n} is {found:?}").into()) }
        }
    });
    let gets = gets.await?;

    let volume = client.volume("load").await?;
    // About 1 KB each, and new to the server.
    let content = |n| format!("{n} {:?}\n", Instant::now()).repeat(20).into_bytes();
    let files =
        (0..COUNT).map(|n| File { path: format!("/folder-{}/{n}", n % 10), content: content(n).into() }).collect();
    let started = Instant::now();
    volume.put(files).await?;
    let upload = started.elapsed().as_secs_f64();

    // The last, as containers are busy for a while with what is spawned.
    let function = client.function(&app, &function).await?;
    let spawns = timed(move |n| {
        let function = function.clone();
        async move {
            function.spawn((n as u64,)).await?;
            Ok(())
        }
    });
    let spawns = spawns.await?;

    println!("{}", serde_json::json!({ "spawns": spawns, "puts": puts, "gets": gets, "upload": upload }));
    Ok(())
}

/// Seconds for [`COUNT`] requests, [`IN_FLIGHT`] of them at a time.
async fn timed<F>(request: impl Fn(usize) -> F + Send + Sync + 'static) -> Result<f64, Failure>
where
    F: Future<Output = Result<(), Failure>> + Send,
{
    let request = Arc::new(request);
    let started = Instant::now();
    let mut lanes = JoinSet::new();
    for first in 0..IN_FLIGHT {
        let request = request.clone();
        lanes.spawn(async move {
            for n in (first..COUNT).step_by(IN_FLIGHT) {
                request(n).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane??;
    }
    Ok(started.elapsed().as_secs_f64())
}
