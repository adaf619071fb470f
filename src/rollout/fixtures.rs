//! Pure: values for tests.
