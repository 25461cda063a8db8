//! The crate's tests from outside: references, a real vocabulary, hostile ones, and properties.

mod hostile;
mod properties;
mod references;
mod smollm2;
mod support;
