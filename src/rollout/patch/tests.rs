//! Pure: tests.
