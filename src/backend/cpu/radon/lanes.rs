//! Sums of two rows of nodes, with the vector instructions the machine turns out to have.
//!
//! Two shifts that differ by one, the first of them even, are sums of the same two rows: the lower half is added once
//! where it stands and once a column further on. They are worked on together, so that each row is read once.

use pulp::{Arch, NullaryFnOnce, Simd, WithSimd};

/// `out = a + b`; returns the largest sum, or 0 where none is positive.
pub(super) fn add(arch: Arch, out: &mut [f32], a: &[f32], b: &[f32]) -> f32 {
    arch.dispatch(Add { out, a, b })
}

/// `sums += more`, as far as both go.
pub(super) fn accumulate(arch: Arch, sums: &mut [f32], more: &[f32]) {
    arch.dispatch(Accumulate { sums, more });
}

/// Copies; returns the largest value, or 0 where none is positive.
pub(super) fn copy(arch: Arch, out: &mut [f32], from: &[f32]) -> f32 {
    arch.dispatch(Copy { out, from })
}

/// `out[0] = a + b` and `out[1] = a + b[1..]`, side by side in `out`; returns the largest of each, or 0.
pub(super) fn add_twins(arch: Arch, out: &mut [f32], a: &[f32], b: &[f32]) -> [f32; 2] {
    arch.dispatch(AddTwins { out, a, b })
}

/// The largest of `a + b` and of `a + b[1..]`, or 0.
pub(super) fn largest_of_twins(arch: Arch, a: &[f32], b: &[f32]) -> [f32; 2] {
    arch.dispatch(LargestOfTwins { a, b })
}

/// The largest of `a + b`, or 0.
pub(super) fn largest_sum(arch: Arch, a: &[f32], b: &[f32]) -> f32 {
    arch.dispatch(LargestSum { a, b })
}

/// The largest of `v·|v| / w`, weights below `least` counted as that, or 0.
pub(super) fn largest_power(arch: Arch, v: &[f32], w: &[f32], least: f32) -> f32 {
    arch.dispatch(LargestPower { v, w, least })
}

/// `out = (a + b) · scale`; returns the largest, or 0.
pub(super) fn scaled_sums(arch: Arch, out: &mut [f32], [a, b]: [&[f32]; 2], scale: f32) -> f32 {
    arch.dispatch(ScaledSums { out, a, b, scale })
}

/// `out = ((a + b) + (c + d)) · scale`; returns the largest, or 0.
pub(super) fn scaled_sums_of_pairs(
    arch: Arch,
    out: &mut [f32],
    [a, b]: [&[f32]; 2],
    [c, d]: [&[f32]; 2],
    scale: f32,
) -> f32 {
    arch.dispatch(ScaledSumsOfPairs { out, a, b, c, d, scale })
}

/// `v = v / √w`, or 0 where w is no more than `least`; returns the largest, or 0.
pub(super) fn over_root(arch: Arch, v: &mut [f32], w: &[f32], least: f32) -> f32 {
    arch.dispatch(OverRoot { v, w, least })
}

/// Where the middle one of three rows has peaks above a threshold: greater than the neighbours before them (in rows,
/// then in columns), not less than those after. The first and the last column have no neighbours, and are left out.
pub(super) fn find_peaks(arch: Arch, rows: [&[f32]; 3], threshold: f32, found: &mut Vec<usize>) {
    arch.dispatch(FindPeaks { rows, threshold, found });
}

// Types and functions, no closures: what is dispatched has to be inlined to get the machine's vectors, and closures
// cannot say so.

struct Add<'a> {
    out: &'a mut [f32],
    a: &'a [f32],
    b: &'a [f32],
}

struct Accumulate<'a> {
    sums: &'a mut [f32],
    more: &'a [f32],
}

struct Copy<'a> {
    out: &'a mut [f32],
    from: &'a [f32],
}

struct AddTwins<'a> {
    out: &'a mut [f32],
    a: &'a [f32],
    b: &'a [f32],
}

struct LargestOfTwins<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

struct LargestSum<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

struct LargestPower<'a> {
    v: &'a [f32],
    w: &'a [f32],
    least: f32,
}

struct ScaledSums<'a> {
    out: &'a mut [f32],
    a: &'a [f32],
    b: &'a [f32],
    scale: f32,
}

struct ScaledSumsOfPairs<'a> {
    out: &'a mut [f32],
    a: &'a [f32],
    b: &'a [f32],
    c: &'a [f32],
    d: &'a [f32],
    scale: f32,
}

struct OverRoot<'a> {
    v: &'a mut [f32],
    w: &'a [f32],
    least: f32,
}

struct FindPeaks<'a> {
    rows: [&'a [f32]; 3],
    threshold: f32,
    found: &'a mut Vec<usize>,
}

impl WithSimd for Add<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let n = self.out.len();
        let ((out, out_rest), (a, a_rest), (b, b_rest)) =
            (S::as_mut_simd_f32s(self.out), S::as_simd_f32s(&self.a[..n]), S::as_simd_f32s(&self.b[..n]));
        let mut most = simd.splat_f32s(0.0);
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            *out = simd.add_f32s(*a, *b);
            most = simd.max_f32s(most, *out);
        }
        let rest = simd.add_f32s(simd.partial_load_f32s(a_rest), simd.partial_load_f32s(b_rest));
        simd.partial_store_f32s(out_rest, rest);
        simd.reduce_max_f32s(simd.max_f32s(most, rest))
    }
}

impl NullaryFnOnce for Accumulate<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.sums.iter_mut().zip(self.more).for_each(|(sum, more)| *sum += more);
    }
}

impl WithSimd for Copy<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let ((out, out_rest), (from, from_rest)) = (S::as_mut_simd_f32s(self.out), S::as_simd_f32s(self.from));
        let mut most = simd.splat_f32s(0.0);
        for (out, value) in out.iter_mut().zip(from) {
            *out = *value;
            most = simd.max_f32s(most, *value);
        }
        let rest = simd.partial_load_f32s(from_rest);
        simd.partial_store_f32s(out_rest, rest);
        simd.reduce_max_f32s(simd.max_f32s(most, rest))
    }
}

impl WithSimd for AddTwins<'_> {
    type Output = [f32; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f32; 2] {
        let (even, odd) = self.out.split_at_mut(self.out.len() / 2);
        let n = even.len();
        let ((even, even_rest), (odd, odd_rest)) = (S::as_mut_simd_f32s(even), S::as_mut_simd_f32s(odd));
        let (a, a_rest) = S::as_simd_f32s(&self.a[..n]);
        let (b, b_rest) = S::as_simd_f32s(&self.b[..n]);
        let (c, c_rest) = S::as_simd_f32s(&self.b[1..=n]);
        let mut most = [simd.splat_f32s(0.0); 2];
        for ((((even, odd), a), b), c) in even.iter_mut().zip(odd).zip(a).zip(b).zip(c) {
            *even = simd.add_f32s(*a, *b);
            *odd = simd.add_f32s(*a, *c);
            most = [simd.max_f32s(most[0], *even), simd.max_f32s(most[1], *odd)];
        }
        let rest = rest_of_twins(simd, a_rest, b_rest, c_rest);
        simd.partial_store_f32s(even_rest, rest[0]);
        simd.partial_store_f32s(odd_rest, rest[1]);
        largest_lanes(simd, most, rest)
    }
}

impl WithSimd for LargestOfTwins<'_> {
    type Output = [f32; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f32; 2] {
        let n = self.a.len();
        let (a, a_rest) = S::as_simd_f32s(self.a);
        let (b, b_rest) = S::as_simd_f32s(&self.b[..n]);
        let (c, c_rest) = S::as_simd_f32s(&self.b[1..=n]);
        let mut most = [simd.splat_f32s(0.0); 2];
        for ((a, b), c) in a.iter().zip(b).zip(c) {
            most = [simd.max_f32s(most[0], simd.add_f32s(*a, *b)), simd.max_f32s(most[1], simd.add_f32s(*a, *c))];
        }
        largest_lanes(simd, most, rest_of_twins(simd, a_rest, b_rest, c_rest))
    }
}

/// The sums at the ends of the rows, less than a vector; lanes beyond are 0.
#[inline(always)]
fn rest_of_twins<S: Simd>(simd: S, a: &[f32], b: &[f32], c: &[f32]) -> [S::f32s; 2] {
    let a = simd.partial_load_f32s(a);
    [simd.add_f32s(a, simd.partial_load_f32s(b)), simd.add_f32s(a, simd.partial_load_f32s(c))]
}

#[inline(always)]
fn largest_lanes<S: Simd>(simd: S, most: [S::f32s; 2], rest: [S::f32s; 2]) -> [f32; 2] {
    [simd.reduce_max_f32s(simd.max_f32s(most[0], rest[0])), simd.reduce_max_f32s(simd.max_f32s(most[1], rest[1]))]
}

impl WithSimd for LargestSum<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let ((a, a_rest), (b, b_rest)) = (S::as_simd_f32s(self.a), S::as_simd_f32s(&self.b[..self.a.len()]));
        let mut most = simd.splat_f32s(0.0);
        for (a, b) in a.iter().zip(b) {
            most = simd.max_f32s(most, simd.add_f32s(*a, *b));
        }
        let rest = simd.add_f32s(simd.partial_load_f32s(a_rest), simd.partial_load_f32s(b_rest));
        simd.reduce_max_f32s(simd.max_f32s(most, rest))
    }
}

impl WithSimd for LargestPower<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let least = simd.splat_f32s(self.least);
        let ((v, v_rest), (w, w_rest)) = (S::as_simd_f32s(self.v), S::as_simd_f32s(&self.w[..self.v.len()]));
        let mut most = simd.splat_f32s(0.0);
        for (v, w) in v.iter().zip(w) {
            most = simd.max_f32s(most, power(simd, *v, *w, least));
        }
        let rest = power(simd, simd.partial_load_f32s(v_rest), simd.partial_load_f32s(w_rest), least);
        simd.reduce_max_f32s(simd.max_f32s(most, rest))
    }
}

impl NullaryFnOnce for ScaledSums<'_> {
    type Output = f32;

    #[inline(always)]
    fn call(self) -> f32 {
        for ((out, a), b) in self.out.iter_mut().zip(self.a).zip(self.b) {
            *out = (a + b) * self.scale;
        }
        largest(self.out)
    }
}

impl NullaryFnOnce for ScaledSumsOfPairs<'_> {
    type Output = f32;

    #[inline(always)]
    fn call(self) -> f32 {
        for ((((out, a), b), c), d) in self.out.iter_mut().zip(self.a).zip(self.b).zip(self.c).zip(self.d) {
            *out = ((a + b) + (c + d)) * self.scale;
        }
        largest(self.out)
    }
}

impl NullaryFnOnce for OverRoot<'_> {
    type Output = f32;

    #[inline(always)]
    fn call(self) -> f32 {
        for (v, w) in self.v.iter_mut().zip(self.w) {
            *v = if *w > self.least { *v / w.sqrt() } else { 0.0 };
        }
        largest(self.v)
    }
}

/// The largest value, or 0.
#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let (side_by_side, rest) = values.as_chunks::<TOGETHER>();
    let mut most = [0.0_f32; TOGETHER];
    for some in side_by_side {
        raise(&mut most, *some);
    }
    most.iter().chain(rest).fold(0.0, |most, v| if *v > most { *v } else { most })
}

/// Values that are looked at side by side.
const TOGETHER: usize = 16;

impl NullaryFnOnce for FindPeaks<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { rows: [above, row, below], threshold, found } = self;
        let inner = row.len().saturating_sub(2);
        for first in (0..inner).step_by(TOGETHER) {
            let v = side_by_side(row, first + 1);
            let mut any = false;
            for v in v {
                any |= v > threshold;
            }
            if !any {
                continue;
            }
            let (mut before, mut after) = ([threshold; TOGETHER], [f32::NEG_INFINITY; TOGETHER]);
            for (row, left) in [(above, 0), (above, 1), (above, 2), (row, 0)] {
                raise(&mut before, side_by_side(row, first + left));
            }
            for (row, left) in [(row, 2), (below, 0), (below, 1), (below, 2)] {
                raise(&mut after, side_by_side(row, first + left));
            }
            let mut any = false;
            for k in 0..TOGETHER {
                any |= (v[k] > before[k]) & (v[k] >= after[k]);
            }
            if any {
                for k in 0..TOGETHER.min(inner - first) {
                    if v[k] > before[k] && v[k] >= after[k] {
                        found.push(first + 1 + k);
                    }
                }
            }
        }
    }
}

/// The larger of each two.
#[inline(always)]
fn raise(most: &mut [f32; TOGETHER], values: [f32; TOGETHER]) {
    for (most, value) in most.iter_mut().zip(values) {
        *most = if value > *most { value } else { *most };
    }
}

/// Values from one on; nothing beyond the last.
#[inline(always)]
fn side_by_side(row: &[f32], first: usize) -> [f32; TOGETHER] {
    if let Some(values) = row[first..].first_chunk() {
        return *values;
    }
    let mut values = [f32::NEG_INFINITY; TOGETHER];
    for (value, v) in values.iter_mut().zip(&row[first..]) {
        *value = *v;
    }
    values
}

#[inline(always)]
fn power<S: Simd>(simd: S, v: S::f32s, w: S::f32s, least: S::f32s) -> S::f32s {
    simd.div_f32s(simd.mul_f32s(v, simd.abs_f32s(v)), simd.max_f32s(w, least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_their_largest() {
        let arch = Arch::new();
        for n in [0, 1, 8, 31, 32, 67, 79] {
            // Some negative, and for n = 1 all of them.
            let a: Vec<f32> = (0..n).map(|i| ((i * 37) % 11) as f32 - 7.0).collect();
            let b: Vec<f32> = (0..=n).map(|i| ((i * 53) % 17) as f32 - 5.0).collect();
            let sums = |from: usize| -> Vec<f32> { a.iter().zip(&b[from..]).map(|(a, b)| a + b).collect() };
            let largest = |values: &[f32]| values.iter().copied().fold(0.0, f32::max);
            let expected = [sums(0), sums(1)];
            let most = [largest(&expected[0]), largest(&expected[1])];
            let mut out = vec![0.0; n];
            assert_eq!(add(arch, &mut out, &a, &b), most[0]);
            assert_eq!(out, expected[0]);
            assert_eq!(copy(arch, &mut out, &a), largest(&a));
            assert_eq!(out, a);
            let mut both = vec![0.0; 2 * n];
            assert_eq!(add_twins(arch, &mut both, &a, &b), most);
            assert_eq!(both, expected.concat());
            assert_eq!(largest_of_twins(arch, &a, &b), most);
            assert_eq!(largest_sum(arch, &a, &b), most[0]);
            let power = expected[0].iter().map(|v| v * v.abs() / v.max(3.0)).fold(0.0, f32::max);
            assert_eq!(largest_power(arch, &expected[0], &expected[0], 3.0), power);
        }
    }

    #[test]
    fn scaled_sums_and_coverage() {
        let arch = Arch::new();
        for n in [0, 1, 15, 16, 53] {
            let row = |k: usize| -> Vec<f32> { (0..n).map(|i| ((i * k) % 11) as f32 - 6.0).collect() };
            let [a, b, c, d] = [37, 5, 7, 3].map(row);
            let largest = |values: &[f32]| values.iter().copied().fold(0.0, f32::max);
            let expected: Vec<f32> = (0..n).map(|i| (a[i] + b[i]) * 0.3).collect();
            let mut out = vec![0.0; n];
            assert_eq!(scaled_sums(arch, &mut out, [&a, &b], 0.3), largest(&expected));
            assert_eq!(out, expected);
            let expected: Vec<f32> = (0..n).map(|i| ((a[i] + b[i]) + (c[i] + d[i])) * 0.3).collect();
            assert_eq!(scaled_sums_of_pairs(arch, &mut out, [&a, &b], [&c, &d], 0.3), largest(&expected));
            assert_eq!(out, expected);
            let expected: Vec<f32> = (0..n).map(|i| if c[i] > 1.0 { out[i] / c[i].sqrt() } else { 0.0 }).collect();
            assert_eq!(over_root(arch, &mut out, &c, 1.0), largest(&expected));
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn peaks_are_those_found_one_by_one() {
        for n in [2, 3, 17, 18, 19, 80] {
            // Few values, so that there are plateaus.
            let row = |k: usize| -> Vec<f32> { (0..n).map(|i| ((i * i * k + i) % 7) as f32).collect() };
            let rows = [row(3), row(5), row(2)];
            let is_peak = |x: &usize| {
                let v = rows[1][*x];
                let before = [rows[0][x - 1], rows[0][*x], rows[0][x + 1], rows[1][x - 1]];
                let after = [rows[1][x + 1], rows[2][x - 1], rows[2][*x], rows[2][x + 1]];
                v > 3.0 && before.iter().all(|b| v > *b) && after.iter().all(|a| v >= *a)
            };
            let expected: Vec<usize> = (1..n - 1).filter(is_peak).collect();
            assert!(n < 80 || !expected.is_empty());
            let mut found = Vec::new();
            find_peaks(Arch::new(), [&rows[0], &rows[1], &rows[2]], 3.0, &mut found);
            assert_eq!(found, expected, "{n}");
        }
    }
}
