//! Effects: stdout, clock — how the story looks: numbered chapters, and what was seen with the time it took.

use std::{fmt::Display, time::Instant};

/// Where the story is printed.
pub(super) struct Screen {
    opened: Instant,
    number: usize,
    began: Instant,
}

impl Screen {
    pub(super) fn open() -> Self {
        println!("Lockstep demo. Times are seconds since the chapter began.");
        Self {
            opened: Instant::now(),
            number: 0,
            began: Instant::now(),
        }
    }

    /// Begins a chapter.
    pub(super) fn chapter(&mut self, title: &str) {
        self.number += 1;
        self.began = Instant::now();
        println!("\n{:>2}. {title}", self.number);
    }

    /// The number of the chapter.
    pub(super) const fn number(&self) -> usize {
        self.number
    }

    /// Tells what was seen just now.
    pub(super) fn seen(&self, what: impl Display) {
        println!("    {:>5.2}  {what}", self.began.elapsed().as_secs_f32());
    }

    /// Tells something that needs no time.
    pub(super) fn note(what: impl Display) {
        for line in what.to_string().lines() {
            println!("           {line}");
        }
    }

    /// Ends the story.
    pub(super) fn close(&self) {
        println!(
            "\nDone in {:.0} seconds.",
            self.opened.elapsed().as_secs_f32()
        );
    }
}
