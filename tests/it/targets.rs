//! The Secret that is written is the one asked for, and nobody else's.

mod merge;
mod ownership;
mod shape;
