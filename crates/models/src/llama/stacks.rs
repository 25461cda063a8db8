//! Which matrices of a file are stacked into one on the device.
//!
//! Projections of the same input whose weights have one format lie one above the other, so that one dispatch computes all of them. Files mix
//! formats as they like: a part that differs from the one before it begins a matrix of its own.

use std::collections::HashMap;
use std::ops::Range;

use burn::tensor::Device;
use cinderlm_kernels::PackedMatrix;
use cinderlm_weights::PackedLayout;
use cinderlm_weights::packed::TILE_ROWS;

use super::tensor_names::{LinearPart, Place};

/// The projections that share their input, in the order of their outputs.
pub(super) const ATTENTION: [LinearPart; 3] =
    [LinearPart::Query, LinearPart::Key, LinearPart::Value];
/// As [`ATTENTION`], of the feed-forward network.
pub(super) const MLP: [LinearPart; 2] = [LinearPart::Gate, LinearPart::Up];

/// Where a matrix of the file goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Slot {
    /// The place of the first of those it is stacked with, itself if there is none.
    pub(super) owner: Place,
    /// Its rows there.
    pub(super) rows: Range<usize>,
}

/// Where each matrix of the file goes.
#[derive(Debug)]
pub(super) struct Stacks {
    slots: HashMap<Place, Slot>,
    layouts: HashMap<Place, PackedLayout>,
}

impl Stacks {
    /// Stacks the matrices of a file, whose layouts have been checked.
    pub(super) fn new(matrices: &[(Place, PackedLayout)], device: &Device) -> Self {
        let mut stacks = Self {
            slots: HashMap::new(),
            layouts: HashMap::new(),
        };
        for &(place, layout) in matrices {
            stacks.layouts.insert(place, layout);
            let (owner, rows) = (place, 0..layout.n_rows);
            stacks.slots.insert(place, Slot { owner, rows });
        }
        for &(place, _) in matrices {
            let Place::Weight(layer, part) = place else {
                continue;
            };
            for parts in [&ATTENTION[..], &MLP] {
                if parts[0] == part {
                    stacks.stack(layer, parts, device);
                }
            }
        }
        stacks
    }

    /// Where a matrix goes.
    pub(super) fn slot(&self, place: Place) -> Option<&Slot> {
        self.slots.get(&place)
    }

    /// The layout of the matrix that begins with `owner`.
    pub(super) fn layout(&self, owner: Place) -> Option<PackedLayout> {
        self.layouts.get(&owner).copied()
    }

    fn stack(&mut self, layer: usize, parts: &[LinearPart], device: &Device) {
        let mut owner = Place::Weight(layer, parts[0]);
        for &part in &parts[1..] {
            let place = Place::Weight(layer, part);
            let (Some(&upper), Some(&lower)) = (self.layouts.get(&owner), self.layouts.get(&place))
            else {
                return;
            };
            let stacked = PackedLayout {
                n_rows: upper.n_rows + lower.n_rows,
                ..upper
            };
            let fits = upper.format == lower.format
                && upper.n_cols == lower.n_cols
                && upper.n_rows.is_multiple_of(TILE_ROWS)
                && stacked.check().is_ok()
                && PackedMatrix::check(&stacked, device).is_ok();
            if fits {
                self.layouts.insert(owner, stacked);
                self.layouts.remove(&place);
                let rows = upper.n_rows..stacked.n_rows;
                self.slots.insert(place, Slot { owner, rows });
            } else {
                owner = place;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cinderlm_weights::{BlockType, Interleave};

    use super::*;

    #[test]
    fn parts_of_one_format_are_stacked() {
        use BlockType::{Q4K, Q6K};
        let check = |q, k, v, k_rows, expected: [(LinearPart, Range<usize>); 3]| {
            let layout = |block_type, n_rows| {
                PackedLayout::new(block_type, n_rows, 256, Interleave::Rows).expect("a layout")
            };
            let matrices = [
                (Place::Weight(1, LinearPart::Key), layout(k, k_rows)),
                (Place::Weight(1, LinearPart::Query), layout(q, 64)),
                (Place::Weight(1, LinearPart::Value), layout(v, 33)),
            ];
            let stacks = Stacks::new(&matrices, &Device::flex());
            for (part, (owner, rows)) in ATTENTION.into_iter().zip(expected) {
                let owner = Place::Weight(1, owner);
                let slot = stacks.slot(Place::Weight(1, part));
                assert_eq!(slot, Some(&Slot { owner, rows }), "{part:?}");
            }
        };
        let [query, key, value] = ATTENTION;
        let all = [(query, 0..64), (query, 64..96), (query, 96..129)];
        check(Q4K, Q4K, Q4K, 32, all);
        let two = [(query, 0..64), (query, 64..96), (value, 0..33)];
        check(Q4K, Q4K, Q6K, 32, two);
        check(
            Q4K,
            Q6K,
            Q6K,
            32,
            [(query, 0..64), (key, 0..32), (key, 32..65)],
        );
        // A part that ends inside a tile is the last of its matrix.
        check(
            Q4K,
            Q4K,
            Q4K,
            31,
            [(query, 0..64), (query, 64..95), (value, 0..33)],
        );
    }
}
