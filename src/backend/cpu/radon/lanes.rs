//! Sums of two rows of nodes, with the vector instructions the machine turns out to have.

use pulp::Arch;

/// Values worked on side by side: four vectors of AVX2, two of AVX-512.
const LANES: usize = 32;

/// `out = a + b`; returns the largest sum.
pub(super) fn add(arch: Arch, out: &mut [f32], a: &[f32], b: &[f32]) -> f32 {
    arch.dispatch(|| add_lanes(out, a, b))
}

/// The largest of `a + b`.
pub(super) fn largest_sum(arch: Arch, a: &[f32], b: &[f32]) -> f32 {
    arch.dispatch(|| largest_sum_lanes(a, b))
}

/// The largest of `v·|v| / w`, weights below `least` counted as that.
pub(super) fn largest_power(arch: Arch, v: &[f32], w: &[f32], least: f32) -> f32 {
    arch.dispatch(|| largest_power_lanes(v, w, least))
}

/// Compiles to one instruction, unlike `f32::max` with its rule for NaN.
#[inline(always)]
fn max(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

#[inline(always)]
fn fold(lanes: [f32; LANES], rest: f32) -> f32 {
    lanes.into_iter().fold(rest, max)
}

#[inline(always)]
fn add_lanes(out: &mut [f32], a: &[f32], b: &[f32]) -> f32 {
    let (a, b) = (&a[..out.len()], &b[..out.len()]);
    let mut largest = [f32::NEG_INFINITY; LANES];
    let (out_lanes, out_rest) = out.as_chunks_mut::<LANES>();
    let ((a_lanes, a_rest), (b_lanes, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for ((o, a), b) in out_lanes.iter_mut().zip(a_lanes).zip(b_lanes) {
        for i in 0..LANES {
            let sum = a[i] + b[i];
            o[i] = sum;
            largest[i] = max(largest[i], sum);
        }
    }
    let mut rest = f32::NEG_INFINITY;
    for ((o, a), b) in out_rest.iter_mut().zip(a_rest).zip(b_rest) {
        *o = a + b;
        rest = max(rest, *o);
    }
    fold(largest, rest)
}

#[inline(always)]
fn largest_sum_lanes(a: &[f32], b: &[f32]) -> f32 {
    let b = &b[..a.len()];
    let mut largest = [f32::NEG_INFINITY; LANES];
    let ((a_lanes, a_rest), (b_lanes, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for i in 0..LANES {
            largest[i] = max(largest[i], a[i] + b[i]);
        }
    }
    fold(largest, a_rest.iter().zip(b_rest).map(|(a, b)| a + b).fold(f32::NEG_INFINITY, max))
}

#[inline(always)]
fn largest_power_lanes(v: &[f32], w: &[f32], least: f32) -> f32 {
    let w = &w[..v.len()];
    let power = |v: f32, w: f32| v * v.abs() / max(w, least);
    let mut largest = [f32::NEG_INFINITY; LANES];
    let ((v_lanes, v_rest), (w_lanes, w_rest)) = (v.as_chunks::<LANES>(), w.as_chunks::<LANES>());
    for (v, w) in v_lanes.iter().zip(w_lanes) {
        for i in 0..LANES {
            largest[i] = max(largest[i], power(v[i], w[i]));
        }
    }
    fold(largest, v_rest.iter().zip(w_rest).map(|(v, w)| power(*v, *w)).fold(f32::NEG_INFINITY, max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_their_largest() {
        let arch = Arch::new();
        for n in [0, 1, 31, 32, 67] {
            let a: Vec<f32> = (0..n).map(|i| ((i * 37) % 11) as f32).collect();
            let b: Vec<f32> = (0..n).map(|i| ((i * 53) % 17) as f32).collect();
            let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
            let largest = expected.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut out = vec![0.0; n];
            assert_eq!(add(arch, &mut out, &a, &b), largest);
            assert_eq!(out, expected);
            assert_eq!(largest_sum(arch, &a, &b), largest);
            let power = expected.iter().map(|v| v * v / v.max(3.0)).fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(largest_power(arch, &expected, &expected, 3.0), power);
        }
    }
}
