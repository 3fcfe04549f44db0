//! Starting and stopping an emulator.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin::{self, Status},
    containers::Containers,
    driver, endpoints,
    files::Files,
    health::{self, KillSwitch, LocalModalHealth},
    options::{Options, StartError, absolute_python},
    process::kill_orphans,
    server::{self, Listener},
    shared::Shared,
    state::{Now, Settings, State},
    store::Store,
    sweep::{self, Keep},
    token::Token,
    web::{self, Site},
};

/// How long requests may take to end after the server begins to stop.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// How long killed containers may take to end.
const LONGEST_DEATH: Duration = Duration::from_secs(10);

/// A running emulator. If it is dropped without [`Emulator::shutdown`], the next start kills its containers.
pub struct Emulator {
    shared: Arc<Shared>,
    /// Canceled when a part that must keep running ends.
    failed: CancellationToken,
    containers: TaskTracker,
    stop_driver: CancellationToken,
    stop_servers: CancellationToken,
    driver: JoinHandle<()>,
    sweeper: JoinHandle<()>,
    servers: Vec<JoinHandle<()>>,
    /// Held as long as the data folder is in use.
    _lock: File,
}

impl Emulator {
    /// Starts an emulator with the state that the last one left in the data folder. Containers of the last one that
    /// still run are killed first, so that nothing runs twice.
    pub async fn start(mut options: Options) -> Result<Self, StartError> {
        create_private(&options.data_dir)?;
        options.data_dir = fs::canonicalize(&options.data_dir).map_err(StartError::io("find", &options.data_dir))?;
        options.python = absolute_python(&options.python).map_err(StartError::io("find", &options.python))?;
        let lock = lock(&options.data_dir)?;
        let containers_folder = options.containers_folder();
        // Nothing else runs yet, so this may block.
        kill_orphans(&containers_folder);
        kill_orphans(&options.images_folder());
        if containers_folder.exists() {
            fs::remove_dir_all(&containers_folder).map_err(StartError::io("clear", &containers_folder))?;
        }
        for name in ["containers", "files", "images", "logs", "streams", "trees", "uploads", "volumes"] {
            create_private(&options.data_dir.join(name))?;
        }
        options.install_runner().map_err(StartError::io("write the runner to", &options.data_dir))?;
        let failed = CancellationToken::new();
        let (store, rows) = Store::open(&options.data_dir.join("state.db"), failed.clone()).await?;
        let mut state = State::load(rows, Now::read())?;
        sweep::at_start(&options.data_dir, &Keep::of(&state)).map_err(StartError::io("clear", &options.data_dir))?;
        state.configure(Settings {
            default_max_containers: options.default_max_containers,
            stop_grace: options.stop_grace,
        });
        let (listener, server_url) = Listener::bind(&options.listen).await?;
        let loopback = "127.0.0.1:0";
        let bind_error = |source| StartError::Bind { address: loopback.to_owned(), source };
        let web_listener = TcpListener::bind(loopback).await.map_err(bind_error)?;
        let address = web_listener.local_addr().map_err(bind_error)?;
        let token = Token::of(&options.data_dir, &options.listen)
            .map_err(StartError::io("read or write the token in", &options.data_dir))?;
        let site = Site::new(address, Files::new(&options.data_dir));
        let shared = Arc::new(Shared::new(options, server_url, site.clone(), token, state, store));

        endpoints::open_all(&shared).await;
        let admin_listener = admin::bind(&shared.options.data_dir)
            .map_err(StartError::io("make the admin socket in", &shared.options.data_dir))?;
        let (stop_driver, stop_servers) = (CancellationToken::new(), CancellationToken::new());
        let containers = TaskTracker::new();
        let grpc = server::serve(listener, shared.clone(), stop_servers.clone());
        let web = web::serve(web_listener, site, stop_servers.clone());
        let admin = admin::serve(admin_listener, shared.clone(), stop_servers.clone());
        let serve = |name, task| health::spawn(name, &stop_servers, &failed, task);
        let servers = vec![
            serve("gRPC server", report("gRPC", grpc).boxed()),
            serve("HTTP server", report("HTTP", web).boxed()),
            serve("admin server", report("admin", admin).boxed()),
        ];
        let running = Arc::new(Containers::default());
        let driver = driver::run(shared.clone(), running, containers.clone(), stop_driver.clone());
        let driver = health::spawn("driver", &stop_driver, &failed, driver);
        let sweeper = health::spawn("sweeper", &stop_driver, &failed, sweep::run(shared.clone(), stop_driver.clone()));
        Ok(Self { shared, failed, containers, stop_driver, stop_servers, driver, sweeper, servers, _lock: lock })
    }

    /// The value of `MODAL_SERVER_URL` with which the SDK finds this emulator.
    pub fn server_url(&self) -> &str {
        &self.shared.server_url
    }

    /// The value of `MODAL_TOKEN_SECRET` that it accepts; any token id is accepted.
    pub fn token_secret(&self) -> &str {
        self.shared.token.secret()
    }

    /// Canceled when an essential part fails: then shut the emulator down and start it again.
    pub fn failed(&self) -> CancellationToken {
        self.failed.clone()
    }

    /// A health check.
    pub fn heartbeat(&self) -> LocalModalHealth {
        LocalModalHealth::of(&self.shared)
    }

    /// Kills its containers when there is no time for [`Emulator::shutdown`].
    pub fn kill_switch(&self) -> KillSwitch {
        KillSwitch::of(&self.shared.options)
    }

    /// The status of the server: its apps, containers and counts.
    pub fn status(&self) -> Status {
        Status::of(&self.shared)
    }

    /// Stops the containers (they may run their exit handlers for [`Options::stop_grace`]), answers the last requests,
    /// and makes everything durable. Running inputs are delivered again after the next start.
    pub async fn shutdown(self) {
        let Self { shared, failed: _, containers, stop_driver, stop_servers, driver, sweeper, servers, _lock } = self;
        shared.change_soon(|state, _| state.close());
        containers.close();
        // The driver interrupts every container, and kills it after the grace period.
        let limit = shared.options.stop_grace + LONGEST_DEATH;
        if tokio::time::timeout(limit, containers.wait()).await.is_err() {
            tracing::error!("a container does not end; the next start will kill it");
        }
        stop_driver.cancel();
        shared.close_streams.cancel();
        stop_servers.cancel();
        for (name, task) in [("driver", driver), ("sweeper", sweeper)] {
            if let Err(error) = task.await {
                tracing::error!(%error, "the {name} failed");
            }
        }
        for mut server in servers {
            if tokio::time::timeout(LAST_REQUESTS, &mut server).await.is_err() {
                // A client keeps its connection busy; the connection is closed.
                server.abort();
                let _ = server.await;
            }
        }
        // Kills fork servers, and containers that were just forked.
        let kill_switch = KillSwitch::of(&shared.options);
        if let Err(error) = tokio::task::spawn_blocking(move || kill_switch.kill()).await {
            tracing::error!(%error, "the remaining containers could not be killed");
        }
        if tokio::time::timeout(LAST_REQUESTS, shared.endpoints.close()).await.is_err() {
            tracing::warn!("a client of a web function keeps its connection open");
        }
        match Arc::try_unwrap(shared) {
            Ok(shared) => shared.close().await,
            Err(shared) => shared.flush().await,
        }
    }
}

async fn report<E: std::fmt::Display>(which: &'static str, serving: impl Future<Output = Result<(), E>>) {
    if let Err(error) = serving.await {
        tracing::error!(%error, "the {which} server failed");
    }
}

fn create_private(folder: &Path) -> Result<(), StartError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(StartError::io("create", folder))
}

fn lock(data_dir: &Path) -> Result<File, StartError> {
    let path = data_dir.join("lock");
    let file = File::create(&path).map_err(StartError::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse(data_dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(StartError::io("lock", &path)(source)),
    }
}
