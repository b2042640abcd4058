//! Which loop multiplies: chosen once, for the processor that the program finds itself on.
//!
//! All give the same bytes. One binary runs everywhere: nothing is compiled for a processor that may not be there.

use std::sync::OnceLock;

/// A loop that multiplies shards with a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// One affine instruction per product, 64 bytes at a time: GFNI with AVX-512.
    Gfni512,
    /// The same, 32 bytes at a time: GFNI with AVX2, for processors without AVX-512.
    Gfni256,
    /// Two table look-ups per product, 64 bytes at a time.
    Avx2,
    /// `reed-solomon-erasure`'s own loop.
    Portable,
}

impl Kernel {
    /// All, fastest first.
    pub const ALL: [Self; 4] = [Self::Gfni512, Self::Gfni256, Self::Avx2, Self::Portable];

    /// The fastest that this processor has.
    pub fn detect() -> Self {
        static DETECTED: OnceLock<Kernel> = OnceLock::new();
        *DETECTED.get_or_init(|| Self::ALL.into_iter().find(|kernel| kernel.is_supported()).unwrap_or(Self::Portable))
    }

    /// Whether this processor has it.
    #[cfg(target_arch = "x86_64")]
    pub fn is_supported(self) -> bool {
        let gfni = || is_x86_feature_detected!("gfni") && is_x86_feature_detected!("avx2");
        match self {
            Self::Gfni512 => gfni() && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw"),
            Self::Gfni256 => gfni(),
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            Self::Portable => true,
        }
    }

    /// Whether this processor has it.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_supported(self) -> bool {
        self == Self::Portable
    }
}
