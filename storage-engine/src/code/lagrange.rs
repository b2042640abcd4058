//! The factors that make shards out of shards.
//!
//! Byte b of shard i is P(i), where P is the polynomial over GF(2^8) of degree below k with P(j) = byte b of shard j
//! for every data shard j < k. (This is what the usual construction comes to: a Vandermonde matrix over the points
//! 0, 1, 2, …, times the inverse of its own top.) So the shard at any point follows from those at any k others by
//! Lagrange's formula, and no matrix is ever inverted.
//!
//! The field is `reed-solomon-erasure`'s own arithmetic (0x11D), so the two cannot differ in it.

use reed_solomon_erasure::galois_8::{div, mul};

/// The points at which k shards are known.
pub(super) struct Points {
    points: Vec<u8>,
    /// For each point, the product of its differences from all others.
    weights: Vec<u8>,
}

impl Points {
    /// Distinct points.
    pub(super) fn new(points: impl IntoIterator<Item = u8>) -> Self {
        let points: Vec<u8> = points.into_iter().collect();
        let others = |point: u8| points.iter().filter(move |other| **other != point);
        let weights = points.iter().map(|point| others(*point).fold(1, |product, other| mul(product, point ^ other)));
        Self { weights: weights.collect(), points }
    }

    /// The factor of each known shard in the shard at `wanted`, which is none of the points.
    pub(super) fn row(&self, wanted: u8) -> Vec<u8> {
        let all = self.points.iter().fold(1, |product, point| mul(product, wanted ^ point));
        let factor = |(point, weight): (&u8, &u8)| div(all, mul(*weight, wanted ^ point));
        self.points.iter().zip(&self.weights).map(factor).collect()
    }
}

/// The field's product, for the kernels' tables.
#[cfg(target_arch = "x86_64")]
pub(super) fn product(a: u8, b: u8) -> u8 {
    mul(a, b)
}
