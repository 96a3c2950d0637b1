//! `rollforge serve-rm`: a reward model that answers over HTTP, for runs elsewhere.

mod judge;
mod routes;

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use tokio::sync::oneshot;

use crate::{config::ComputeDtype, trainer::config::Device};
use judge::Judge;
use routes::{Shared, routes};

/// What is served, and to whom.
#[derive(Clone, Debug)]
pub struct RewardServerOptions {
    /// The reward model's directory, or that of a run: then its latest checkpoint.
    pub model: PathBuf,
    /// Bring scores to mean 0 and variance 1 by what `rollforge rm` wrote beside the weights.
    pub standardize: bool,
    /// What each of its labels counts, by name; none where there is one label.
    pub weights: BTreeMap<String, f64>,
    /// Where it listens. Port 0 takes any that is free.
    pub listen: SocketAddr,
    /// What a request must say after `Authorization: Bearer`. `None` asks nobody who they are.
    pub token: Option<String>,
    /// Where it computes.
    pub device: Device,
    /// The number format to compute in.
    pub dtype: ComputeDtype,
    /// Number of threads; 0 takes every core.
    pub threads: usize,
}

/// A reward model that is served.
///
/// # Drop
/// Ends with the request it is at.
#[derive(Debug)]
pub struct RewardServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RewardServer {
    /// Loads the model and serves it.
    ///
    /// # Errors
    /// When the model cannot be used, or nothing can listen at the address.
    pub fn start(options: RewardServerOptions) -> Result<Self> {
        let judge = Judge::open(&options)?;
        let listener = listen(options.listen)
            .with_context(|| format!("the server cannot listen on {}", options.listen))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let shared = Shared::new(judge, options.token);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .thread_name("reward server")
            .build()?;
        let thread = thread::Builder::new()
            .name("reward server".to_owned())
            .spawn(move || runtime.block_on(serve(listener, shared, stopped)))?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns the address that `reward.url` takes.
    pub fn url(&self) -> String {
        format!("http://{}/score", self.address)
    }

    /// Serves until the process ends.
    pub fn wait(mut self) {
        self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for RewardServer {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
        self.thread.take().map(JoinHandle::join);
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?; // as tokio asks
    Ok(listener)
}

async fn serve(listener: TcpListener, shared: Shared, stop: oneshot::Receiver<()>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    // Not gracefully: a client that keeps its connection would be waited for. Its request is made again elsewhere.
    tokio::select! {
        _ = axum::serve(listener, routes(shared)).into_future() => {}
        _ = stop => {}
    }
}
