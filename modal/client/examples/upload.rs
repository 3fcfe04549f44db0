//! Uploads small files into a Volume in one batch and tells how long it took:
//! `MODAL_SERVER_URL=… cargo run -p modal-client --example upload -- 1000`.

use std::{env, error::Error, time::Instant};

use modal_client::{Client, File, Token};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let count: usize = env::args().nth(1).unwrap_or_else(|| "1000".to_owned()).parse()?;
    let token = Token { id: env::var("MODAL_TOKEN_ID")?, secret: env::var("MODAL_TOKEN_SECRET")? };
    let client = Client::connect(&env::var("MODAL_SERVER_URL")?, &token).await?;
    let volume = client.volume("upload-example").await?;
    for round in 1..=3 {
        // New contents each time, of about 1 KB.
        let content = |n| format!("{round} {n} {:?}\n", Instant::now()).repeat(20).into_bytes();
        let files =
            (0..count).map(|n| File { path: format!("/folder-{}/{n}", n % 10), content: content(n).into() }).collect();
        let started = Instant::now();
        volume.put(files).await?;
        println!("{count} files in {:.3} s", started.elapsed().as_secs_f64());
    }
    Ok(())
}
