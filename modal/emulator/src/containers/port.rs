//! The ports of this machine on which containers listen.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal};

use crate::{endpoints, error::Error, process::handles_signal, shared::Shared, state::Definition};

/// How often a server's port is checked.
const POLL_PERIOD: Duration = Duration::from_millis(50);

/// Checks that the ports of a container are free.
pub fn check_free(definition: &Definition) -> Result<(), Error> {
    for port in definition.own_ports() {
        let Ok(number) = u16::try_from(port) else { continue };
        match TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let reason = format!("another program or container of this machine listens on {port}; choose another");
                return Err(Error::invalid("port", reason));
            }
            // Other errors, such as a privileged port, are reported by the container itself.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// Records when the container of a server can be reached. Never returns; does nothing for other containers.
pub async fn await_server(shared: &Arc<Shared>, definition: &Definition, task_id: &str, leader: Pid) {
    if let Some(config) = definition.server() {
        let entered = shared.wait_for(task_id, None, |state, _| {
            let has_entered = state.task_mut(task_id)?.entered;
            Ok(has_entered.then_some(()))
        });
        // An error means that Local Modal is stopping.
        if let Ok(Some(())) = entered.await {
            // The SDK reports that it has entered shortly before it installs its SIGTERM handler.
            while !handles_signal(leader, Signal::TERM) {
                tokio::time::sleep(POLL_PERIOD).await;
            }
            shared.change_soon(|state, _| state.server_can_end(task_id));
            while endpoints::connect(config.port).await.is_err() {
                tokio::time::sleep(POLL_PERIOD).await;
            }
            shared.change_soon(|state, now| state.server_listens(task_id, now));
        }
    }
    std::future::pending().await
}
