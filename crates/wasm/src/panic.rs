//! Panics end the module; what they said is kept for whoever reports them.

use std::cell::RefCell;

thread_local! {
    static MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the message of a panic and shows it in the console.
pub(crate) fn install_hook() {
    std::panic::set_hook(Box::new(|info| {
        let message = info.to_string();
        web_sys::console::error_1(&message.as_str().into());
        MESSAGE.with(|kept| {
            if let Ok(mut kept) = kept.try_borrow_mut() {
                *kept = Some(message);
            }
        });
    }));
}

/// What the last panic said.
pub(crate) fn message() -> Option<String> {
    MESSAGE.with(|kept| kept.try_borrow().ok().and_then(|kept| kept.clone()))
}
