//! Counting tokens and time.

use cinderlm_protocol::{Timings, Usage};

/// What a request has used so far. Times are milliseconds of the runtime's clock; time spent waiting for the consumer is not in them, and
/// what its prompts and choices do side by side counts once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    arrived_at: f64,
    queue_millis: Option<f64>,
    prompt_millis: f64,
    first_token_millis: Option<f64>,
    decode_millis: f64,
    n_prompt_tokens: u64,
    n_tokens: u64,
    /// Tokens after each choice's first: what `decode_millis` was spent on.
    n_later_tokens: u64,
    /// Until when time has been counted.
    counted_until: f64,
}

impl Meter {
    pub(crate) fn new(now: f64) -> Self {
        Self {
            arrived_at: now,
            queue_millis: None,
            prompt_millis: 0.0,
            first_token_millis: None,
            decode_millis: 0.0,
            n_prompt_tokens: 0,
            n_tokens: 0,
            n_later_tokens: 0,
            counted_until: now,
        }
    }

    /// The request, or one of its choices, has its turn.
    pub(crate) fn begin(&mut self, now: f64) {
        self.queue_millis.get_or_insert(now - self.arrived_at);
    }

    /// A prompt of `n_tokens` was read.
    pub(crate) fn count_prompt(&mut self, n_tokens: usize, started: f64, now: f64) {
        self.n_prompt_tokens += n_tokens as u64;
        self.prompt_millis += self.uncounted(started, now);
    }

    /// A token was generated.
    pub(crate) fn count_token(&mut self, is_first_of_choice: bool, started: f64, now: f64) {
        self.n_tokens += 1;
        self.first_token_millis.get_or_insert(now - self.arrived_at);
        if !is_first_of_choice {
            self.n_later_tokens += 1;
            self.decode_millis += self.uncounted(started, now);
        }
    }

    /// The part of a stretch of time that has not been counted yet; now it is.
    fn uncounted(&mut self, started: f64, now: f64) -> f64 {
        let from = started.max(self.counted_until);
        self.counted_until = self.counted_until.max(now);
        (now - from).max(0.0)
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::new(self.n_prompt_tokens, self.n_tokens)
    }

    /// Loading is the host's business and 0 here.
    pub(crate) fn timings(&self) -> Timings {
        let is_measured = self.n_later_tokens > 0 && self.decode_millis > 0.0;
        let per_second = 1000.0 * self.n_later_tokens as f64 / self.decode_millis;
        Timings {
            queue_millis: self.queue_millis.unwrap_or_default(),
            load_millis: 0.0,
            prompt_millis: self.prompt_millis,
            first_token_millis: self.first_token_millis,
            decode_millis: self.decode_millis,
            tokens_per_second: is_measured.then_some(per_second),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_tokens_are_told_apart() {
        let mut meter = Meter::new(100.0);
        meter.begin(130.0);
        meter.count_prompt(5, 130.0, 180.0);
        meter.count_token(true, 180.0, 182.0);
        meter.count_token(false, 200.0, 210.0);
        meter.count_token(false, 300.0, 310.0);
        // A choice beside it, in the same step.
        meter.begin(300.0);
        meter.count_token(false, 300.0, 312.0);
        assert_eq!(meter.usage(), Usage::new(5, 4));
        let expect = Timings {
            queue_millis: 30.0,
            load_millis: 0.0,
            prompt_millis: 50.0,
            first_token_millis: Some(82.0),
            decode_millis: 22.0,
            tokens_per_second: Some(3000.0 / 22.0),
        };
        assert_eq!(meter.timings(), expect);
    }

    #[test]
    fn nothing_generated_has_no_speed() {
        let timings = Meter::new(0.0).timings();
        assert_eq!(timings.first_token_millis, None);
        assert_eq!(timings.tokens_per_second, None);
    }
}
