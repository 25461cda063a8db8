//! Panics end the module; what they said is kept for whoever reports them.

use std::sync::Mutex;

/// What the first panic said, on whatever thread: those after it follow from it.
static MESSAGE: Mutex<Option<String>> = Mutex::new(None);

/// Keeps the message of a panic and shows it in the console.
pub(crate) fn install_hook() {
    std::panic::set_hook(Box::new(|info| {
        let message = info.to_string();
        web_sys::console::error_1(&message.as_str().into());
        if let Ok(mut kept) = MESSAGE.try_lock() {
            kept.get_or_insert(message);
        }
    }));
}

/// What the first panic said.
pub(crate) fn message() -> Option<String> {
    MESSAGE.try_lock().ok().and_then(|kept| kept.clone())
}
