//! Local Modal: Modal's control plane on this machine.
//!
//! The unmodified SDK deploys to it (set `MODAL_SERVER_URL` to [`Emulator::server_url`], and a token), and the
//! functions really run: each container is a process of the SDK's own entry point. It uses the interpreter of
//! [`Options::python`], or a virtual environment on top of it with the other packages of the image's recipe. Calls of
//! Modal's methods that are not implemented fail with `UNIMPLEMENTED` and their name; `COVERAGE.md` lists all methods.
//!
//! Other differences from Modal:
//! - Containers are processes of this machine: they see its files, and share its network and its ports. Their own
//!   files, their Volumes and their home `/root` have the same paths as on Modal if the system allows mount namespaces.
//!   Otherwise `MODAL_LOCAL_VOLUMES` is a JSON object from mount paths to folders, and the home is elsewhere.
//! - With [`VolumeMode::Bind`], containers write to a Volume's own folder, so a missing `commit` or `reload` goes
//!   unnoticed; [`VolumeMode::Strict`] is like Modal.
//! - Steps of an image's recipe about Python are supported: packages (by pip, uv or poetry), variables, files, the
//!   working folder, functions as steps. `ENTRYPOINT`, `USER` and the system below Python are not. Other steps are
//!   refused, skipped with a warning, or run on this machine, depending on [`Options::image_steps`]. Packages come from
//!   the indexes of the recipe, or of the `UV_*` and `PIP_*` variables in the server's environment. uv installs them;
//!   if this machine has no uv, it is installed into the data folder.
//! - Memory snapshots are fork servers: processes that imported the function's module and fork its containers.
//!   Functions of an app that have the same image, mounts, variables, Volumes and module share one.
//! - Each container has its own home `/root` and its own working folder. Their contents are lost when it ends, unless
//!   it runs a function that is a step of an image. In other folders outside of Volumes, containers write to this
//!   machine.
//! - A limit on memory is enforced by ending the container. CPU, GPU and regions are not enforced.
//! - When containers end three times in a row before they take an input, the waiting inputs fail with the reason. Modal
//!   keeps trying for deployed apps. Containers that end while they run an input are handled as on Modal.
//! - A function that asks for a GPU is refused, or runs without one if [`Options::ignore_gpu`] is set.
//! - A web function has its own port on loopback, and keeps its URL as long as the port is free. Labels have no effect
//!   on the URL, custom domains are refused, and HTTP trailers are left out. A request waits for a container for as
//!   long as its function may take to start, but at least 150 s, and is never redirected. Functions with proxy
//!   authentication accept the tokens of `modal workspace proxy-tokens create`, in any environment.
//! - The port of a `web_server` or of a server is one of this machine: it must be free, and such a function has one
//!   container, so that a new version starts after the old one has ended. While no container of a server listens,
//!   requests get a 503 with the reason why the last one failed. Sessions are refused, and the region has no effect.
//! - A generator that is 64 MiB ahead of its readers waits, and is canceled when nobody reads for a minute.
//! - At most 100,000 inputs of a function wait. Further ones are refused, and the SDK's maps then wait.
//! - On a Unix socket, which is closed to other users, any token is accepted; on a port, the secret in the data folder
//!   (see [`Emulator::token_secret`]). It listens on this machine only.
//!
//! The structure: `interceptor` authenticates requests, and `rpc` decodes them and calls `state`, which holds
//! everything in memory and has all the rules. `shared` puts a lock around it, with `store` for durability and
//! `subscriptions` to wake the requests that a change concerns. `driver` carries out the plans of the state, with
//! `containers` for the processes and `images` for their environments. `volumes`, `views`, `files` and `logs` are on
//! disk; `web` serves uploads and downloads. `endpoints` are the ports of web functions, and `streams` has the values
//! of generators and the messages of web requests. `admin`, `counts` and `faults` are for tests and for monitoring.
//! `tests/tests/it/architecture.rs` has the order of the modules.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admin;
mod containers;
mod counts;
mod driver;
mod emulator;
mod endpoints;
mod error;
mod faults;
mod files;
mod health;
mod ids;
mod images;
mod interceptor;
mod logs;
mod options;
mod process;
mod rpc;
mod runtime;
mod server;
mod shared;
mod state;
mod store;
mod streams;
mod subscriptions;
mod sweep;
mod token;
mod views;
mod volumes;
mod web;

pub use self::{
    admin::{AppStatus, ContainerState, ContainerStatus, FunctionStatus, SOCKET as ADMIN_SOCKET, Status},
    emulator::Emulator,
    faults::{Action, Fault, When},
    health::{KillSwitch, LocalModalHealth},
    images::UV,
    options::{ImageSteps, Listen, Options, StartError, VolumeMode},
    runtime::runtime,
    store::StoreError,
    token::TOKEN_FILE,
};
