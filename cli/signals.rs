//! SIGINT (Ctrl-C) and SIGTERM: the first asks the run to stop, the second ends the program.

use std::{
    io::{self, Read},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag, low_level,
};

use super::output::note;
use crate::run::{Signal, Stop};

/// Listens for the rest of the program's life.
///
/// A signal that is not heeded within the deadline ends the program: the checkpoint that `LATEST` names is whole at any
/// moment.
///
/// # Errors
/// When handlers cannot be installed.
pub(super) fn listen() -> io::Result<Stop> {
    let (arrivals, wake) = UnixStream::pair()?;
    let last = Arc::new(AtomicUsize::new(0));
    for signal in [SIGINT, SIGTERM] {
        // Handlers run in this order: who is woken finds the number.
        flag::register_usize(signal, last.clone(), signal as usize)?;
        low_level::pipe::register(signal, wake.try_clone()?)?;
    }
    let stop = Stop::default();
    let heard = stop.clone();
    thread::Builder::new().name("signals".into()).spawn(move || heed(arrivals, &last, &heard))?;
    Ok(stop)
}

/// Waits for a signal, and then for what comes first: another one, the deadline, or the program's end.
fn heed(mut arrivals: UnixStream, last: &AtomicUsize, stop: &Stop) {
    // Relaxed: the byte that was read orders it.
    let signal = || match last.load(Ordering::Relaxed) as i32 {
        SIGINT => Signal::Interrupt,
        _ => Signal::Terminate,
    };
    if arrivals.read_exact(&mut [0]).is_err() {
        return;
    }
    stop.request(signal());
    note("stopping after the step under way (again to stop at once)");
    let deadline = stop.deadline();
    if arrivals.set_read_timeout(Some(deadline)).is_ok() && arrivals.read_exact(&mut [0]).is_err() {
        note(too_late(deadline));
    }
    low_level::exit(signal().exit_status().into());
}

fn too_late(deadline: Duration) -> String {
    format!(
        "error: the step under way did not end within {} s (stop.deadline_seconds) and is abandoned; --resume goes on from \
         the checkpoint that LATEST names",
        deadline.as_secs_f64()
    )
}
