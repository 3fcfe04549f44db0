//! Local Modal: Modal's control plane on this machine.
//!
//! The unmodified SDK deploys to it (set `MODAL_SERVER_URL` to [`Emulator::server_url`], and any token), and the same
//! functions really run: each container is a process of the SDK's own entry point in the interpreter of
//! [`Options::python`], or in a virtual environment on top of it that has what the image's recipe asks for besides. A
//! method of Modal's that is not spoken here answers `UNIMPLEMENTED` with its name; `COVERAGE.md` lists all of them.
//!
//! Where it differs from Modal, beyond what it does not speak:
//! - Containers are processes of this machine: they see its files, share its network and its ports. Their own files,
//!   their Volumes and their home `/root` are where Modal has them if the system lets a process have a mount namespace;
//!   where it does not, `MODAL_LOCAL_VOLUMES` is a JSON object from mount paths to folders, and the home is elsewhere.
//! - With [`VolumeMode::Bind`] containers write to a Volume's own folder, so a missing `commit` or `reload` goes
//!   unnoticed; [`VolumeMode::Strict`] is like Modal.
//! - Of an image's recipe, what is about Python is done: packages (by pip, uv or poetry), variables, files, the working
//!   folder, functions as steps. `ENTRYPOINT`, `USER` and the system below Python are not. Other steps are refused,
//!   skipped with a warning, or run on this machine, as [`Options::image_steps`] says. Packages come from the indexes that
//!   the recipe names or that `UV_*` and `PIP_*` variables of the server's environment do, and are installed by uv, which
//!   is installed into the data folder if this machine has none.
//! - Memory snapshots are fork servers: a process that imported the function's module forks its containers. Functions of
//!   an app that have the same image, mounts, variables, Volumes and module share one.
//! - Each container has its own home `/root` and its own working folder: what it writes there goes with it, unless it is
//!   that of a function that is a step of an image. Elsewhere outside of Volumes, containers write to this machine.
//! - A limit on memory is enforced, by ending the container; CPU, GPU and regions are not.
//! - Containers that end three times in a row before they take an input fail the inputs that wait, with the reason. Modal
//!   tries on for deployed apps. Those that end while they run an input are as on Modal.
//! - A function that asks for a GPU is refused, or runs without one if [`Options::ignore_gpu`] says so.
//! - A web function has a port of its own on loopback, at a URL that it keeps as long as the port can be had; labels and
//!   custom domains make no difference to it (the latter are refused), and HTTP trailers are left out. A request waits
//!   for a container for as long as its function may take to start, but at least 150 s, and is never redirected. Those
//!   that ask for proxy authentication take the tokens of `modal workspace proxy-tokens create`, in any environment.
//! - The port of a `web_server` or of a server is this machine's: it must be free, and there is one container of such a
//!   function, so that a new version begins when the old one has ended. While no container of a server listens, requests
//!   are answered with 503, and why the last one failed. Sessions are refused, and the region makes no difference.
//! - A generator that is 64 MiB ahead of its readers waits, and is cancelled when nobody reads for a minute.
//! - At most 100,000 inputs of a function wait; then more are refused, which the SDK's maps take as a reason to wait.
//! - Any token is accepted on a Unix socket, which is closed to other users; on a port, the secret in the data folder
//!   (see [`Emulator::token_secret`]). It listens on this machine only.
//!
//! How it hangs together: `rpc` decodes requests and calls `state`, which holds everything in memory and has all the
//! rules; `shared` puts a lock around it and `store` behind it, and `waiting` wakes the requests that a change concerns;
//! `driver` carries out what the state plans, with `containers` for the processes and `images` for what they run in.
//! `volumes`, `views`, `files` and `logs` are what is on disk; `web` serves what travels over HTTP. `endpoints` are the
//! ports of web functions, and `streams` carries what generators yield and what web requests say. `gate` and `admin`
//! are for tests and for those who want to know.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admin;
mod containers;
mod driver;
mod emulator;
mod endpoints;
mod error;
mod files;
mod gate;
mod ids;
mod images;
mod logs;
mod options;
mod rpc;
mod runtime;
mod server;
mod shared;
mod state;
mod store;
mod streams;
mod sweep;
mod token;
mod views;
mod vital;
mod volumes;
mod waiting;
mod web;

pub use self::{
    admin::{
        Action, AppStatus, ContainerState, ContainerStatus, Fault, FunctionStatus, SOCKET as ADMIN_SOCKET, Status, When,
    },
    emulator::Emulator,
    images::UV,
    options::{ImageSteps, Listen, Options, StartError, VolumeMode},
    runtime::runtime,
    store::StoreError,
    token::TOKEN_FILE,
    vital::{Heartbeat, Killer},
};
