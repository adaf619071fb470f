//! Effects: everything — the real parts Lockstep is tried against, started on loopback for one test process.

pub mod parts;
