//! The engine's hooks into a browser: its clocks, its random source and its event loop.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use cinderlm_engine::{DeviceWork, Runtime};
use futures::channel::oneshot;
use js_sys::{Date, Function};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::*;
use web_sys::{MessageChannel, MessagePort, Performance};

type Waiting = Rc<RefCell<VecDeque<oneshot::Sender<()>>>>;

thread_local! {
    /// Tells what the device was given to do since it was last called; see [`watch_device`].
    static WATCHER: RefCell<Option<Function>> = const { RefCell::new(None) };
}

/// Has `take_work` tell what the device was given to do.
pub(crate) fn watch_device(take_work: Function) {
    WATCHER.set(Some(take_work));
}

/// The browser that this module runs in, whether in a worker or in a page.
#[derive(Clone)]
pub(crate) struct Host {
    performance: Performance,
    tasks: Rc<Tasks>,
}

impl Host {
    /// # Errors
    /// The host is no browser: it lacks `performance` or `MessageChannel`.
    pub(crate) fn new() -> Result<Self, JsValue> {
        let performance = js_sys::Reflect::get(&js_sys::global(), &"performance".into())?
            .dyn_into::<Performance>()?;
        Ok(Self {
            performance,
            tasks: Rc::new(Tasks::new()?),
        })
    }

    /// Cores that the browser tells of, at least 1.
    pub(crate) fn n_cores(&self) -> usize {
        let global = js_sys::global();
        let n_cores = js_sys::Reflect::get(&global, &"navigator".into())
            .and_then(|navigator| js_sys::Reflect::get(&navigator, &"hardwareConcurrency".into()))
            .ok()
            .and_then(|n_cores| n_cores.as_f64());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small count"
        )]
        let n_cores = n_cores.map_or(1, |n_cores| n_cores.clamp(1.0, 1024.0) as usize);
        n_cores
    }
}

impl Runtime for Host {
    fn now_millis(&self) -> f64 {
        self.performance.now()
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a date after 1970, in seconds"
    )]
    fn unix_seconds(&self) -> u64 {
        (Date::now() / 1000.0) as u64
    }

    fn random_seed(&self) -> u64 {
        // Fails only where there is no `crypto`, which every browser has; the clock then still tells requests apart.
        getrandom::u64().unwrap_or_else(|_| self.performance.now().to_bits())
    }

    async fn yield_now(&self) {
        self.tasks.next().await;
    }

    fn take_work(&self) -> DeviceWork {
        let told = WATCHER.with_borrow(|watcher| {
            let told = watcher.as_ref()?.call0(&JsValue::UNDEFINED).ok()?;
            serde_wasm_bindgen::from_value(told).ok()
        });
        told.unwrap_or_default()
    }
}

/// Tasks of the event loop, made by messages to ourselves.
///
/// A timer would do as well, but browsers stretch nested timers to 4 ms, a sizeable part of a token.
struct Tasks {
    waiting: Waiting,
    sender: MessagePort,
    receiver: MessagePort,
    _on_message: Closure<dyn FnMut()>,
}

impl Tasks {
    fn new() -> Result<Self, JsValue> {
        let channel = MessageChannel::new()?;
        let waiting = Waiting::default();
        let on_message = {
            let waiting = Rc::clone(&waiting);
            Closure::<dyn FnMut()>::new(move || {
                let first = waiting.borrow_mut().pop_front();
                if let Some(first) = first {
                    // The task may have been dropped while it waited.
                    let _ = first.send(());
                }
            })
        };
        let receiver = channel.port1();
        receiver.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        Ok(Self {
            waiting,
            sender: channel.port2(),
            receiver,
            _on_message: on_message,
        })
    }

    /// Resolves in a later task of the event loop.
    async fn next(&self) {
        let (done, turn) = oneshot::channel();
        self.waiting.borrow_mut().push_back(done);
        if self.sender.post_message(&JsValue::NULL).is_err() {
            self.waiting.borrow_mut().pop_back();
            return;
        }
        // An error means that the sender is gone, which is as good as a turn.
        let _ = turn.await;
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.receiver.set_onmessage(None);
        self.receiver.close();
    }
}
