//! What the engine asks of the program around it.

use crate::work::DeviceWork;

/// Hooks into the host: clocks, randomness and its event loop.
///
/// The engine reads no clock and no random source by itself, so one build of it runs in a browser's worker, natively and, with a
/// scripted runtime, in tests.
pub trait Runtime {
    /// Milliseconds from any fixed point; only differences are used. Never goes backwards.
    fn now_millis(&self) -> f64;

    /// Seconds since 1970-01-01T00:00:00Z, for a response's `created`.
    fn unix_seconds(&self) -> u64;

    /// 64 bits from the platform's secure random source: seeds of requests that name none, and completion ids.
    fn random_seed(&self) -> u64;

    /// Lets the host's event loop run once. The engine awaits it before every step of the model, so that whatever the host has
    /// queued, a cancellation above all, is heard within one token.
    #[allow(
        async_fn_in_trait,
        reason = "everything runs on one thread of a worker: no caller needs Send"
    )]
    async fn yield_now(&self);

    /// What the device was given to do since this was last asked, where the host watches it.
    fn take_work(&self) -> DeviceWork {
        DeviceWork::default()
    }
}
