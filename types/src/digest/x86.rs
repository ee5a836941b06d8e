//! Two digests over the same blocks, with the SHA instructions of x86-64.
//!
//! No library that we know of takes two states over one message; ADR 0008 says what it gains. The words that a block is
//! expanded to are the same for both, so they are made once.
#![expect(unsafe_code, reason = "instructions that not every processor has, and their registers as bytes")]
#![expect(clippy::many_single_char_names, reason = "the standard's names")]

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_set_epi32, _mm_set_epi64x, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32,
    _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
};

/// Round constants (FIPS 180-4, 4.2.2).
static K: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// Lets both states go on over whole blocks of 64 bytes. Does nothing and says so where the processor cannot.
pub(super) fn compress_both(one: &mut [u32; 8], other: &mut [u32; 8], blocks: &[u8]) -> bool {
    let can =
        is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1") && is_x86_feature_detected!("ssse3");
    if can {
        // SAFETY: the processor has these instructions.
        unsafe { with_sha(one, other, blocks) };
    }
    can
}

#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn with_sha(one: &mut [u32; 8], other: &mut [u32; 8], blocks: &[u8]) {
    // Words of a message are big-endian.
    let order = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let ([mut one_abef, mut one_cdgh], [mut other_abef, mut other_cdgh]) = (split(one), split(other));
    for block in blocks.as_chunks::<64>().0 {
        let before = [one_abef, one_cdgh, other_abef, other_cdgh];
        let [mut w0, mut w1, mut w2, mut w3] = load(block).map(|words| _mm_shuffle_epi8(words, order));
        // Four rounds of both: each instruction makes two, and the pair that it gives back trades places with the other.
        macro_rules! rounds {
            ($words:ident, $at:expr) => {
                let k = load_words(&K[$at]);
                let lower = _mm_add_epi32($words, k);
                let upper = _mm_shuffle_epi32(lower, 0x0e);
                one_cdgh = _mm_sha256rnds2_epu32(one_cdgh, one_abef, lower);
                other_cdgh = _mm_sha256rnds2_epu32(other_cdgh, other_abef, lower);
                one_abef = _mm_sha256rnds2_epu32(one_abef, one_cdgh, upper);
                other_abef = _mm_sha256rnds2_epu32(other_abef, other_cdgh, upper);
            };
        }
        // The next four words from the last sixteen, and four rounds with them.
        macro_rules! next {
            ($w0:ident, $w1:ident, $w2:ident, $w3:ident, $at:expr) => {
                let partly = _mm_add_epi32(_mm_sha256msg1_epu32($w0, $w1), _mm_alignr_epi8($w3, $w2, 4));
                $w0 = _mm_sha256msg2_epu32(partly, $w3);
                rounds!($w0, $at);
            };
        }
        macro_rules! sixteen {
            ($at:literal) => {
                next!(w0, w1, w2, w3, $at);
                next!(w1, w2, w3, w0, $at + 1);
                next!(w2, w3, w0, w1, $at + 2);
                next!(w3, w0, w1, w2, $at + 3);
            };
        }
        rounds!(w0, 0);
        rounds!(w1, 1);
        rounds!(w2, 2);
        rounds!(w3, 3);
        sixteen!(4);
        sixteen!(8);
        sixteen!(12);
        one_abef = _mm_add_epi32(one_abef, before[0]);
        one_cdgh = _mm_add_epi32(one_cdgh, before[1]);
        other_abef = _mm_add_epi32(other_abef, before[2]);
        other_cdgh = _mm_add_epi32(other_cdgh, before[3]);
    }
    *one = joined(one_abef, one_cdgh);
    *other = joined(other_abef, other_cdgh);
}

/// The words of a state as the instructions want them: `a b e f` and `c d g h`, the first in the highest place.
#[target_feature(enable = "sse2")]
fn split(state: &[u32; 8]) -> [__m128i; 2] {
    let [a, b, c, d, e, f, g, h] = state.map(u32::cast_signed);
    [_mm_set_epi32(a, b, e, f), _mm_set_epi32(c, d, g, h)]
}

fn joined(abef: __m128i, cdgh: __m128i) -> [u32; 8] {
    let ([f, e, b, a], [h, g, d, c]) = (store(abef), store(cdgh));
    [a, b, c, d, e, f, g, h]
}

fn load(block: &[u8; 64]) -> [__m128i; 4] {
    // SAFETY: both are 64 bytes, of which any are good.
    unsafe { std::mem::transmute::<[u8; 64], [__m128i; 4]>(*block) }
}

fn load_words(words: &[u32; 4]) -> __m128i {
    // SAFETY: both are 16 bytes, of which any are good.
    unsafe { std::mem::transmute::<[u32; 4], __m128i>(*words) }
}

fn store(words: __m128i) -> [u32; 4] {
    // SAFETY: both are 16 bytes, of which any are good.
    unsafe { std::mem::transmute::<__m128i, [u32; 4]>(words) }
}
