//! The CPU kernels with threads that share their work. In a process of its own: helpers stay.

use std::thread;

use cinderlm_kernels::cpu::{pool, selftest};

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for n_threads in [1, 2, 3, 8] {
        while pool::n_threads() < n_threads {
            let before = pool::n_threads();
            thread::spawn(pool::serve);
            while pool::n_threads() == before {
                thread::yield_now();
            }
        }
        for _ in 0..20 {
            selftest::check().unwrap_or_else(|error| panic!("{n_threads} threads: {error}"));
        }
    }
}
