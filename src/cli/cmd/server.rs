//! What `cachectl master` and `cachectl node` share: addresses, the rule about loopback, data directories, signals.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::error::CliError;
use crate::cli::local::state::{Home, no_home};
use crate::cli::output::escape;

/// Looks up an address to listen on; of several the first IPv4 one, since `localhost` means that to most.
pub fn listen_addr(flag: &str, text: &str) -> Result<SocketAddr, CliError> {
    let bad = |why: String| {
        CliError::usage(format!("--{flag} {}: {why}", escape(text))).hint("an address looks like 127.0.0.1:7201")
    };
    let all: Vec<SocketAddr> = text.to_socket_addrs().map_err(|e| bad(e.to_string()))?.collect();
    let best = all.iter().find(|a| a.is_ipv4()).or(all.first()).copied();
    best.ok_or_else(|| bad("no such host".into()))
}

/// There is no authentication yet, so only this machine may connect unless the operator takes that on himself.
pub fn loopback_only(flag: &str, addr: SocketAddr, insecure_bind: bool) -> Result<(), CliError> {
    if addr.ip().to_canonical().is_loopback() || insecure_bind {
        return Ok(());
    }
    Err(CliError::refused("INSECURE_BIND", format!("--{flag} {addr} is not loopback, and there is no authentication yet: whoever reaches the port could read and change everything"))
        .hint("listen on 127.0.0.1, or say --insecure-bind if the network keeps strangers out"))
}

/// Where servers that were started by hand keep their state; the dot keeps it apart from clusters.
const BY_HAND: &str = ".by-hand";

/// The state directory, said or by default one that this server finds again and no other has.
pub fn data_dir(said: Option<&PathBuf>, role: &str, id: &str, listen: SocketAddr) -> Result<PathBuf, CliError> {
    match said {
        Some(dir) => std::path::absolute(dir).map_err(|e| CliError::failed("STATE", format!("--data: {e}"))),
        None => {
            let root = Home::root().ok_or_else(no_home)?;
            Ok(root.join(BY_HAND).join(format!("{role}-{id}-{}", listen.port())))
        }
    }
}

/// Turns true at SIGTERM or SIGINT. Signals have a thread of their own, so that no busy runtime delays them.
pub fn shutdown_signal() -> Result<watch::Receiver<bool>, CliError> {
    let failed = |e: std::io::Error| CliError::failed("SIGNALS", format!("cannot watch signals: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate()).map_err(failed)?, signal(SignalKind::interrupt()).map_err(failed)?)
    };
    let (tx, rx) = watch::channel(false);
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                tracing::info!(signal = name, "stopping");
                // Nobody listens any more: the process ends anyway.
                let _ = tx.send(true);
                // A second signal must not kill a drain half-way: the sender stays until the process ends.
                std::future::pending::<()>().await;
            });
        })
        .map_err(failed)?;
    Ok(rx)
}

/// Resolves once [`shutdown_signal`] said so.
pub async fn stopped(mut rx: watch::Receiver<bool>) {
    // An error means that the signal thread is gone, which never ends by itself: wait for ever, as without a signal.
    if rx.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Logs how a server ended, and writes the log out: these may be the last words that `up` shows.
pub fn end(role: &str, result: anyhow::Result<()>) -> Result<(), CliError> {
    let result = result.map_err(|e| {
        tracing::error!("{role} ends: {e:#}");
        CliError::from(e)
    });
    if result.is_ok() {
        tracing::info!("{role} ends");
    }
    crate::cli::logging::finish();
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::error::Exit;

    #[test]
    fn only_loopback_without_the_operators_word() {
        for good in ["127.0.0.1:7101", "127.3.2.1:1", "[::1]:7101", "[::ffff:127.0.0.1]:1"] {
            loopback_only("listen", good.parse().unwrap(), false).unwrap();
        }
        for open in ["0.0.0.0:7101", "192.168.1.1:7101", "[::]:7101", "[2001:db8::1]:1"] {
            let CliError::Failed(exit, f) = loopback_only("listen", open.parse().unwrap(), false).unwrap_err() else {
                panic!()
            };
            assert_eq!((exit, f.code.as_str()), (Exit::Refused, "INSECURE_BIND"));
            loopback_only("listen", open.parse().unwrap(), true).unwrap();
        }
    }

    #[test]
    fn names_are_looked_up() {
        assert_eq!(listen_addr("listen", "localhost:7101").unwrap().port(), 7101);
        assert!(listen_addr("listen", "7101").is_err());
        assert!(listen_addr("listen", "127.0.0.1").is_err());
    }
}
