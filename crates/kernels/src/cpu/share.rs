//! Results cut into parts, which threads fill side by side.
//!
//! Which thread fills a part, and how large parts are, changes no value: each is computed by one thread, in the kernel's documented order.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;
use std::slice;

use super::{Own, pool};

/// Multiplications, or what takes as long, that are worth sharing: some microseconds.
const MIN_WORK: usize = 1 << 16;

/// The same of a part at least.
const MIN_PART: usize = 1 << 13;

/// Into how many parts a result of `n_units` is best cut, whose computation takes as long as `work` multiplications.
pub(super) fn n_parts(n_units: usize, work: usize) -> usize {
    match pool::n_threads() {
        1 => 1,
        _ if work < MIN_WORK => 1,
        _ => n_units.min(work / MIN_PART).max(1),
    }
}

/// The units of some neighbouring parts, one at least of `n_parts`.
fn units_of(parts: Range<usize>, n_parts: usize, n_units: usize) -> Range<usize> {
    pool::part(parts.start, n_parts, n_units).start..pool::part(parts.end - 1, n_parts, n_units).end
}

/// Whether threads that share `n_units` have so many each, so that one more or less is no great part of them.
pub(super) fn has_each(n_units: usize, n_each: usize) -> bool {
    n_units >= n_each * pool::n_threads()
}

/// Fills `y`, which is whole units of `unit_len` values, in `n_parts` parts: `fill` gets a range of units, their values, and the room of the
/// thread that it runs on. `own` is the calling thread's, where it does all.
pub(super) fn units(
    n_parts: usize,
    y: &mut [f32],
    unit_len: usize,
    own: &mut Own,
    fill: impl Fn(Range<usize>, &mut [f32], &mut Own) + Sync,
) {
    let n_units = y.len() / unit_len;
    if n_parts < 2 {
        return fill(0..n_units, y, own);
    }
    let start = Start::of(y);
    pool::run(n_parts, &|parts| {
        let range = units_of(parts, n_parts, n_units);
        // SAFETY: the ranges of parts are disjoint and within the units of `y`, which is borrowed until `run` returns, and `run` has
        // each part filled once.
        let y = unsafe { start.slice(range.start * unit_len, range.len() * unit_len) };
        with_own(|own| fill(range, y, own));
    });
}

/// Fills `y`, `[rows, width]`, in parts of whole columns, of which `unit` go together: else as [`units`].
pub(super) fn columns(
    n_parts: usize,
    y: &mut [f32],
    width: usize,
    unit: usize,
    own: &mut Own,
    fill: impl Fn(Range<usize>, &mut Columns<'_>, &mut Own) + Sync,
) {
    let start = Start::of(y);
    let part = |range: Range<usize>, own: &mut Own| {
        let mut part = Columns {
            start,
            width,
            range: range.clone(),
            y: PhantomData,
        };
        fill(range, &mut part, own);
    };
    if n_parts < 2 {
        return part(0..width, own);
    }
    let n_units = width.div_ceil(unit);
    pool::run(n_parts, &|parts| {
        let units = units_of(parts, n_parts, n_units);
        with_own(|own| part(units.start * unit..width.min(units.end * unit), own));
    });
}

/// Some columns of a matrix that other threads have other columns of.
pub(super) struct Columns<'a> {
    start: Start,
    width: usize,
    range: Range<usize>,
    y: PhantomData<&'a mut [f32]>,
}

impl Columns<'_> {
    /// This part's values of a row.
    ///
    /// # Panics
    /// There is no such row.
    #[inline(always)]
    pub(super) fn row(&mut self, row: usize) -> &mut [f32] {
        // SAFETY: no other part has these columns, this one lends them to one borrower at a time, and the matrix is borrowed as long as parts
        // are filled.
        unsafe {
            self.start
                .slice(row * self.width + self.range.start, self.range.len())
        }
    }
}

/// Values that several threads write, each its own.
#[derive(Clone, Copy)]
struct Start {
    first: *mut f32,
    len: usize,
}

// SAFETY: a thread reaches values through `slice` only, whose callers see to it that no two have the same ones.
unsafe impl Send for Start {}
// SAFETY: as above.
unsafe impl Sync for Start {}

impl Start {
    fn of(y: &mut [f32]) -> Self {
        Self {
            first: y.as_mut_ptr(),
            len: y.len(),
        }
    }

    /// # Safety
    /// The values that this was made of are borrowed as long as the result lives, and nobody else has any of those in it.
    ///
    /// # Panics
    /// They are not as many.
    #[inline(always)]
    unsafe fn slice<'a>(self, from: usize, n: usize) -> &'a mut [f32] {
        assert!(
            n <= self.len && from <= self.len - n,
            "{n} values from {from}"
        );
        // SAFETY: in bounds, and the caller vouches for the rest.
        unsafe { slice::from_raw_parts_mut(self.first.add(from), n) }
    }
}

/// Runs `f` with this thread's own room.
fn with_own<T>(f: impl FnOnce(&mut Own) -> T) -> T {
    thread_local! {
        static OWN: RefCell<Own> = RefCell::default();
    }
    OWN.with_borrow_mut(f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_parts_have_neighbouring_units() {
        for (n_parts, n_units) in [(1, 1), (2, 5), (3, 3), (7, 30), (16, 36)] {
            for cut in 1..n_parts {
                let (before, after) = (0..cut, cut..n_parts);
                let [before, after] =
                    [before, after].map(|parts| units_of(parts, n_parts, n_units));
                assert_eq!((before.start, after.end), (0, n_units));
                assert_eq!(before.end, after.start, "{n_parts} parts of {n_units}");
                assert!(!before.is_empty() && !after.is_empty());
            }
        }
    }

    #[test]
    fn parts_cover_every_value_once() {
        for (n_parts, n_units) in [(1, 1), (2, 5), (3, 3), (7, 30), (5, 1000)] {
            let mut y = vec![0.0; n_units * 3];
            units(n_parts, &mut y, 3, &mut Own::default(), |range, y, _| {
                for (unit, y) in range.zip(y.chunks_exact_mut(3)) {
                    y.iter_mut().for_each(|y| *y += unit as f32 + 1.0);
                }
            });
            for (unit, y) in y.chunks_exact(3).enumerate() {
                assert_eq!(y, [unit as f32 + 1.0; 3], "{n_parts} parts of {n_units}");
            }
        }
    }

    #[test]
    fn columns_cover_every_value_once() {
        for (n_parts, width) in [(1, 7), (2, 33), (3, 48), (5, 100)] {
            let mut y = vec![0.0; 4 * width];
            columns(
                n_parts,
                &mut y,
                width,
                16,
                &mut Own::default(),
                |range, y, _| {
                    assert!(range.start.is_multiple_of(16));
                    for row in 0..4 {
                        let values = y.row(row);
                        assert_eq!(values.len(), range.len());
                        for (column, y) in range.clone().zip(values) {
                            *y += (row * width + column) as f32;
                        }
                    }
                },
            );
            let expected: Vec<f32> = (0..4 * width).map(|i| i as f32).collect();
            assert_eq!(y, expected, "{n_parts} parts of {width} columns");
        }
    }
}
