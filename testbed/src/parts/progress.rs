//! Effects: stderr, threads — one line when something slow starts, every ten seconds, and when it is done.

use std::{
    io::{self, Write},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Long enough not to scroll a terminal away, short enough to show that something still happens.
const BEAT: Duration = Duration::from_secs(10);

/// Says on stderr what is happening until it is dropped.
pub(crate) struct Progress {
    part: &'static str,
    started: Instant,
    /// Dropping it ends the beating thread.
    beating: Option<mpsc::Sender<()>>,
}

impl Progress {
    /// Announces `what` for `part`.
    pub(crate) fn start(part: &'static str, what: &'static str) -> Self {
        line(part, what);
        let started = Instant::now();
        let (beating, ended) = mpsc::channel::<()>();
        thread::spawn(move || {
            while ended.recv_timeout(BEAT) == Err(mpsc::RecvTimeoutError::Timeout) {
                line(part, &format!("{what} ({} s)", started.elapsed().as_secs()));
            }
        });
        Self {
            part,
            started,
            beating: Some(beating),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.beating.take());
        line(
            self.part,
            &format!("done after {:.1} s", self.started.elapsed().as_secs_f32()),
        );
    }
}

/// Writes one line about a part; goes past the capture of the test harness on purpose.
pub(crate) fn line(part: &str, what: &str) {
    // A closed stderr is nobody's concern here.
    drop(writeln!(io::stderr().lock(), "testbed: {part}: {what}"));
}
