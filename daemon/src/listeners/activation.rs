//! Socket activation: sockets opened by a service manager (`LISTEN_PID`, `LISTEN_FDS`).

use std::{
    net::TcpListener,
    os::{fd::AsFd, unix::net::UnixListener},
};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

use super::ListenError;
use crate::loopback::LoopbackAddress;

/// First descriptor number of systemd's socket activation.
const FIRST_DESCRIPTOR: usize = 3;

/// The sockets passed to this process, not checked yet.
pub struct Activation(ListenFd);

/// The usable sockets of an activation.
#[derive(Default)]
pub(super) struct Handed {
    pub unix: Vec<UnixListener>,
    pub tcp: Vec<TcpListener>,
}

impl Activation {
    /// Takes the sockets, so that no child process does. Changes the environment, so call it before there are threads.
    pub fn from_environment() -> Self {
        Self(ListenFd::from_env())
    }

    /// Returns the sockets; fails if the API must not be served on one of them.
    pub(super) fn take(mut self) -> Result<Handed, ListenError> {
        let mut handed = Handed::default();
        for index in 0..self.0.len() {
            let descriptor = FIRST_DESCRIPTOR + index;
            if let Ok(Some(socket)) = self.0.take_unix_listener(index) {
                listening(descriptor, &socket)?;
                handed.unix.push(socket);
            } else if let Ok(Some(socket)) = self.0.take_tcp_listener(index) {
                listening(descriptor, &socket)?;
                let address = socket.local_addr().map_err(|source| ListenError::Handed { descriptor, source })?;
                LoopbackAddress::try_from(address)?;
                handed.tcp.push(socket);
            } else {
                return Err(ListenError::Unusable { descriptor });
            }
        }
        Ok(handed)
    }
}

fn listening(descriptor: usize, socket: &impl AsFd) -> Result<(), ListenError> {
    match socket_acceptconn(socket) {
        Ok(true) => Ok(()),
        Ok(false) => Err(ListenError::Unusable { descriptor }),
        Err(source) => Err(ListenError::Handed { descriptor, source: source.into() }),
    }
}
