//! The live page: a server on loopback, on a thread of its own.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{sync::oneshot, time};

use super::{
    address::Address,
    recording::Recording,
    routes::{Shared, routes},
};

/// How often the files are looked at.
const POLL: Duration = Duration::from_millis(250);
/// How long clients may take to hear of the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why there is no dashboard.
#[derive(Debug, thiserror::Error)]
pub enum DashboardError {
    /// Something else listens there, or may not be asked to.
    #[error("the dashboard cannot listen on {address}")]
    Listen {
        /// The address.
        address: Address,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its thread cannot be started.
    #[error("the dashboard's thread cannot be started")]
    Thread(#[source] io::Error),
}

/// A run on a page that follows it.
///
/// # Drop
/// Tells its clients how the run ended and ends, within a second.
#[derive(Debug)]
pub struct Dashboard {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Dashboard {
    /// Serves the run in a folder, which need not be there yet. Without an address it takes 127.0.0.1:7070, or another port
    /// where that one is in use.
    ///
    /// # Errors
    /// When nothing can listen at the address.
    pub fn start(run: &Path, address: Option<Address>) -> Result<Self, DashboardError> {
        let listener = match address {
            Some(address) => listen(address)?,
            None => {
                let [usual, free] = Address::usual();
                listen(usual).or_else(|_| listen(free))?
            }
        };
        let address = listener.local_addr().map_err(DashboardError::Thread)?;
        let shared = Shared::new(Recording::new(run));
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(DashboardError::Thread)?;
        let thread = thread::Builder::new()
            .name("dashboard".to_owned())
            .spawn(move || runtime.block_on(serve(listener, shared, stopped)));
        let thread = Some(thread.map_err(DashboardError::Thread)?);
        Ok(Self { address, stop: Some(stop), thread })
    }

    /// Returns where its page is.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Serves until the process ends.
    pub fn wait(mut self) {
        self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
        self.thread.take().map(JoinHandle::join);
    }
}

fn listen(address: Address) -> Result<TcpListener, DashboardError> {
    let listen = || {
        let listener = TcpListener::bind(address.socket())?;
        listener.set_nonblocking(true)?; // as tokio asks
        Ok(listener)
    };
    listen().map_err(|source| DashboardError::Listen { address, source })
}

/// Serves until `stop`, then says how the run ended.
async fn serve(listener: TcpListener, shared: Shared, stop: oneshot::Receiver<()>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let (end, ended) = oneshot::channel::<()>();
    let server = axum::serve(listener, routes(shared.clone()))
        .with_graceful_shutdown(async { drop(ended.await) });
    let follow = async {
        tokio::select! {
            _ = stop => {}
            () = follow(&shared) => {}
        }
        while shared.poll() {}
        shared.end();
        end.send(()).ok();
        time::sleep(FAREWELL).await;
    };
    tokio::select! {
        _ = server.into_future() => {}
        () = follow => {}
    }
}

/// Looks at the files for all clients.
async fn follow(shared: &Shared) {
    loop {
        if shared.poll() {
            tokio::task::yield_now().await;
        } else {
            time::sleep(POLL).await;
        }
    }
}
