//! Effects: to be written.
