//! A completion as a JavaScript async iterator.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;

use cinderlm_engine::StreamHandle;
use cinderlm_protocol::{CompletionError, ErrorCode, Timings, Usage};
use futures::future::{AbortHandle, Abortable};
use futures::{Stream, StreamExt};
use js_sys::{Object, Promise, Reflect};
use serde::Serialize;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;

use crate::convert::{error_to_js, to_js};

/// The items of a completion, already in JavaScript's terms.
pub(crate) type Items = Pin<Box<dyn Stream<Item = Result<JsValue, CompletionError>>>>;

/// A completion under way: an async iterator that yields chunks, or the one completion of a request without `stream`.
///
/// Work is done only while a `next()` waits. `return()` stops it and frees its memory at once.
#[wasm_bindgen]
pub struct CompletionIterator {
    state: Rc<RefCell<State>>,
    handle: StreamHandle,
}

/// What a completion has used and how long that took.
#[derive(Serialize)]
struct Report {
    usage: Usage,
    timings: Timings,
}

enum State {
    /// Nobody waits.
    Idle(Items),
    /// A `next()` has the items; the handle ends it.
    Busy(AbortHandle),
    Done,
}

#[wasm_bindgen]
impl CompletionIterator {
    /// Runs until the next item is there.
    #[wasm_bindgen(unchecked_return_type = "Promise<IteratorResult<any, undefined>>")]
    pub fn next(&self) -> Promise {
        let items = match self.state.replace(State::Done) {
            State::Idle(items) => items,
            State::Busy(handle) => {
                self.state.replace(State::Busy(handle));
                let error = CompletionError::new(
                    ErrorCode::Internal,
                    "next() was called while another one waits",
                );
                return Promise::reject(&error_to_js(&error));
            }
            State::Done => return Promise::resolve(&done()),
        };
        let (handle, registration) = AbortHandle::new_pair();
        self.state.replace(State::Busy(handle));
        let state = Rc::clone(&self.state);
        future_to_promise(async move {
            let step = async move {
                let mut items = items;
                let item = items.next().await;
                (item, items)
            };
            // An abort drops the step and with it the items; the state is `Done` already.
            let Ok((item, items)) = Abortable::new(step, registration).await else {
                return Ok(done());
            };
            let going_on = matches!(item, Some(Ok(_)));
            let was_left = matches!(*state.borrow(), State::Done);
            state.replace(if going_on && !was_left {
                State::Idle(items)
            } else {
                State::Done
            });
            match item {
                Some(Ok(value)) => Ok(result(&value, false)),
                Some(Err(error)) => Err(error_to_js(&error)),
                None => Ok(done()),
            }
        })
    }

    /// The iterator itself, for `for await`.
    #[wasm_bindgen(js_name = "[Symbol.asyncIterator]")]
    pub fn async_iterator(&self) -> CompletionIterator {
        Self {
            state: Rc::clone(&self.state),
            handle: self.handle.clone(),
        }
    }

    /// Lets a stream that was given a window have `count` chunks more.
    pub fn widen(&self, count: u32) {
        self.handle.widen(count.into());
    }

    /// What the completion has used so far and how long that took, whether it goes on or has ended: `{ usage, timings }`.
    ///
    /// # Errors
    /// `internal`.
    #[wasm_bindgen(unchecked_return_type = "{ usage: any; timings: any }")]
    pub fn report(&self) -> Result<JsValue, JsValue> {
        let report = Report {
            usage: self.handle.usage(),
            timings: self.handle.timings(),
        };
        to_js(&report).map_err(|error| error_to_js(&error))
    }

    /// Stops the completion. A `next()` that waits resolves as done.
    #[wasm_bindgen(
        js_name = "return",
        unchecked_return_type = "Promise<IteratorResult<any, undefined>>"
    )]
    pub fn leave(&self) -> Promise {
        if let State::Busy(handle) = self.state.replace(State::Done) {
            handle.abort();
        }
        Promise::resolve(&done())
    }
}

impl CompletionIterator {
    pub(crate) fn new(items: Items, handle: StreamHandle) -> Self {
        Self {
            state: Rc::new(RefCell::new(State::Idle(items))),
            handle,
        }
    }
}

fn done() -> JsValue {
    result(&JsValue::UNDEFINED, true)
}

fn result(value: &JsValue, done: bool) -> JsValue {
    let result = Object::new();
    // Setting a property of a fresh plain object cannot fail.
    let _ = Reflect::set(&result, &"value".into(), value);
    let _ = Reflect::set(&result, &"done".into(), &done.into());
    result.into()
}
