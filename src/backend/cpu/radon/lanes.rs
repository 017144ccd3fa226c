//! Sums of two rows of nodes, with the vector instructions the machine turns out to have.
//!
//! Two shifts that differ by one, the first of them even, are sums of the same two rows: the lower half is added once
//! where it stands and once a column further on. They are worked on together, so that each row is read once.

use pulp::{Arch, NullaryFnOnce, Simd, WithSimd};

use super::number::Number;

/// `out = a + b`; returns the largest sum, or 0 where none is positive.
pub(super) fn add<T: Number>(arch: Arch, out: &mut [T], a: &[T], b: &[T]) -> f32 {
    arch.dispatch(Add { out, a, b })
}

/// `sums += more`, as far as both go.
pub(super) fn accumulate<T: Number>(arch: Arch, sums: &mut [T], more: &[T]) {
    arch.dispatch(Accumulate { sums, more });
}

/// Copies; returns the largest value, or 0 where none is positive.
pub(super) fn copy<T: Number>(arch: Arch, out: &mut [T], from: &[T]) -> f32 {
    arch.dispatch(Copy { out, from })
}

/// `out[0] = a + b` and `out[1] = a + b[1..]`, side by side in `out`; returns the largest of each, or 0.
pub(super) fn add_twins<T: Number>(arch: Arch, out: &mut [T], a: &[T], b: &[T]) -> [f32; 2] {
    arch.dispatch(AddTwins { out, a, b })
}

/// The largest of `a + b` and of `a + b[1..]`, or 0.
pub(super) fn largest_of_twins<T: Number>(arch: Arch, a: &[T], b: &[T]) -> [f32; 2] {
    arch.dispatch(LargestOfTwins { a, b })
}

/// The largest of `a + b`, or 0.
pub(super) fn largest_sum<T: Number>(arch: Arch, a: &[T], b: &[T]) -> f32 {
    arch.dispatch(LargestSum { a, b })
}

/// The largest of `v·|v| / w`, weights below `least` counted as that, or 0.
pub(super) fn largest_power<T: Number>(arch: Arch, v: &[T], w: &[f32], least: f32) -> f32 {
    arch.dispatch(LargestPower { v, w, least })
}

/// `out = (a + b) · scale`; returns the largest, or 0.
pub(super) fn scaled_sums<T: Number>(arch: Arch, out: &mut [f32], [a, b]: [&[T]; 2], scale: f32) -> f32 {
    arch.dispatch(ScaledSums { out, a, b, scale })
}

/// `out = ((a + b) + (c + d)) · scale`; returns the largest, or 0.
pub(super) fn scaled_sums_of_pairs<T: Number>(
    arch: Arch,
    out: &mut [f32],
    [a, b]: [&[T]; 2],
    [c, d]: [&[T]; 2],
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

struct Add<'a, T> {
    out: &'a mut [T],
    a: &'a [T],
    b: &'a [T],
}

struct Accumulate<'a, T> {
    sums: &'a mut [T],
    more: &'a [T],
}

struct Copy<'a, T> {
    out: &'a mut [T],
    from: &'a [T],
}

struct AddTwins<'a, T> {
    out: &'a mut [T],
    a: &'a [T],
    b: &'a [T],
}

struct LargestOfTwins<'a, T> {
    a: &'a [T],
    b: &'a [T],
}

struct LargestSum<'a, T> {
    a: &'a [T],
    b: &'a [T],
}

struct LargestPower<'a, T> {
    v: &'a [T],
    w: &'a [f32],
    least: f32,
}

struct ScaledSums<'a, T> {
    out: &'a mut [f32],
    a: &'a [T],
    b: &'a [T],
    scale: f32,
}

struct ScaledSumsOfPairs<'a, T> {
    out: &'a mut [f32],
    a: &'a [T],
    b: &'a [T],
    c: &'a [T],
    d: &'a [T],
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

impl<T: Number> WithSimd for Add<'_, T> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let n = self.out.len();
        let ((out, out_rest), (a, a_rest), (b, b_rest)) =
            (T::vectors_mut::<S>(self.out), T::vectors::<S>(&self.a[..n]), T::vectors::<S>(&self.b[..n]));
        let mut most = T::zeros(simd);
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            *out = T::add(simd, *a, *b);
            most = T::larger(simd, most, *out);
        }
        let rest = T::add(simd, T::load_rest(simd, a_rest), T::load_rest(simd, b_rest));
        T::store_rest(simd, out_rest, rest);
        T::largest(simd, T::larger(simd, most, rest))
    }
}

impl<T: Number> NullaryFnOnce for Accumulate<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (sum, more) in self.sums.iter_mut().zip(self.more) {
            *sum = sum.plus(*more);
        }
    }
}

impl<T: Number> WithSimd for Copy<'_, T> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let ((out, out_rest), (from, from_rest)) = (T::vectors_mut::<S>(self.out), T::vectors::<S>(self.from));
        let mut most = T::zeros(simd);
        for (out, value) in out.iter_mut().zip(from) {
            *out = *value;
            most = T::larger(simd, most, *value);
        }
        let rest = T::load_rest(simd, from_rest);
        T::store_rest(simd, out_rest, rest);
        T::largest(simd, T::larger(simd, most, rest))
    }
}

impl<T: Number> WithSimd for AddTwins<'_, T> {
    type Output = [f32; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f32; 2] {
        let (even, odd) = self.out.split_at_mut(self.out.len() / 2);
        let n = even.len();
        let ((even, even_rest), (odd, odd_rest)) = (T::vectors_mut::<S>(even), T::vectors_mut::<S>(odd));
        let (a, a_rest) = T::vectors::<S>(&self.a[..n]);
        let (b, b_rest) = T::vectors::<S>(&self.b[..n]);
        let (c, c_rest) = T::vectors::<S>(&self.b[1..=n]);
        let mut most = [T::zeros(simd); 2];
        for ((((even, odd), a), b), c) in even.iter_mut().zip(odd).zip(a).zip(b).zip(c) {
            *even = T::add(simd, *a, *b);
            *odd = T::add(simd, *a, *c);
            most = [T::larger(simd, most[0], *even), T::larger(simd, most[1], *odd)];
        }
        let rest = rest_of_twins(simd, a_rest, b_rest, c_rest);
        T::store_rest(simd, even_rest, rest[0]);
        T::store_rest(simd, odd_rest, rest[1]);
        largest_lanes::<T, S>(simd, most, rest)
    }
}

impl<T: Number> WithSimd for LargestOfTwins<'_, T> {
    type Output = [f32; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f32; 2] {
        let n = self.a.len();
        let (a, a_rest) = T::vectors::<S>(self.a);
        let (b, b_rest) = T::vectors::<S>(&self.b[..n]);
        let (c, c_rest) = T::vectors::<S>(&self.b[1..=n]);
        let mut most = [T::zeros(simd); 2];
        for ((a, b), c) in a.iter().zip(b).zip(c) {
            most = [T::larger(simd, most[0], T::add(simd, *a, *b)), T::larger(simd, most[1], T::add(simd, *a, *c))];
        }
        largest_lanes::<T, S>(simd, most, rest_of_twins(simd, a_rest, b_rest, c_rest))
    }
}

/// The sums at the ends of the rows, less than a vector; lanes beyond are 0.
#[inline(always)]
fn rest_of_twins<T: Number, S: Simd>(simd: S, a: &[T], b: &[T], c: &[T]) -> [T::Vector<S>; 2] {
    let a = T::load_rest(simd, a);
    [T::add(simd, a, T::load_rest(simd, b)), T::add(simd, a, T::load_rest(simd, c))]
}

#[inline(always)]
fn largest_lanes<T: Number, S: Simd>(simd: S, most: [T::Vector<S>; 2], rest: [T::Vector<S>; 2]) -> [f32; 2] {
    [T::largest(simd, T::larger(simd, most[0], rest[0])), T::largest(simd, T::larger(simd, most[1], rest[1]))]
}

impl<T: Number> WithSimd for LargestSum<'_, T> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let ((a, a_rest), (b, b_rest)) = (T::vectors::<S>(self.a), T::vectors::<S>(&self.b[..self.a.len()]));
        let mut most = T::zeros(simd);
        for (a, b) in a.iter().zip(b) {
            most = T::larger(simd, most, T::add(simd, *a, *b));
        }
        let rest = T::add(simd, T::load_rest(simd, a_rest), T::load_rest(simd, b_rest));
        T::largest(simd, T::larger(simd, most, rest))
    }
}

/// Numbers that are worked on side by side where vectors are left to the compiler.
const ABREAST: usize = 16;

/// The larger of two.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// The largest of some numbers, halves together.
#[inline(always)]
fn largest_of(mut values: [f32; ABREAST]) -> f32 {
    let mut n = ABREAST;
    while n > 1 {
        n /= 2;
        for k in 0..n {
            values[k] = larger(values[k], values[k + n]);
        }
    }
    values[0]
}

impl<T: Number> NullaryFnOnce for LargestPower<'_, T> {
    type Output = f32;

    #[inline(always)]
    fn call(self) -> f32 {
        let n = self.v.len();
        let ((v, v_rest), (w, w_rest)) = (self.v.as_chunks::<ABREAST>(), self.w[..n].as_chunks::<ABREAST>());
        let mut most = [0.0; ABREAST];
        for (v, w) in v.iter().zip(w) {
            for k in 0..ABREAST {
                most[k] = larger(most[k], power(v[k].to_f32(), w[k], self.least));
            }
        }
        let rest = v_rest.iter().zip(w_rest);
        rest.fold(largest_of(most), |most, (v, w)| larger(most, power(v.to_f32(), *w, self.least)))
    }
}

#[inline(always)]
fn power(v: f32, w: f32, least: f32) -> f32 {
    v * v.abs() / larger(w, least)
}

impl<T: Number> NullaryFnOnce for ScaledSums<'_, T> {
    type Output = f32;

    #[inline(always)]
    fn call(self) -> f32 {
        for ((out, a), b) in self.out.iter_mut().zip(self.a).zip(self.b) {
            *out = (a.to_f32() + b.to_f32()) * self.scale;
        }
        largest(self.out)
    }
}

impl<T: Number> NullaryFnOnce for ScaledSumsOfPairs<'_, T> {
    type Output = f32;

    #[inline(always)]
    fn call(self) -> f32 {
        for ((((out, a), b), c), d) in self.out.iter_mut().zip(self.a).zip(self.b).zip(self.c).zip(self.d) {
            *out = ((a.to_f32() + b.to_f32()) + (c.to_f32() + d.to_f32())) * self.scale;
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
    let (parts, rest) = values.as_chunks::<ABREAST>();
    let mut most = [0.0; ABREAST];
    for part in parts {
        raise(&mut most, *part);
    }
    rest.iter().fold(largest_of(most), |most, v| larger(most, *v))
}

/// The larger of each two.
#[inline(always)]
fn raise(most: &mut [f32; ABREAST], values: [f32; ABREAST]) {
    for (most, value) in most.iter_mut().zip(values) {
        *most = larger(*most, value);
    }
}

impl NullaryFnOnce for FindPeaks<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { rows: [above, row, below], threshold, found } = self;
        let inner = row.len().saturating_sub(2);
        for first in (0..inner).step_by(ABREAST) {
            let v = side_by_side(row, first + 1);
            let mut any = false;
            for v in v {
                any |= v > threshold;
            }
            if !any {
                continue;
            }
            let (mut before, mut after) = ([threshold; ABREAST], [f32::NEG_INFINITY; ABREAST]);
            for (row, left) in [(above, 0), (above, 1), (above, 2), (row, 0)] {
                raise(&mut before, side_by_side(row, first + left));
            }
            for (row, left) in [(row, 2), (below, 0), (below, 1), (below, 2)] {
                raise(&mut after, side_by_side(row, first + left));
            }
            let mut any = false;
            for k in 0..ABREAST {
                any |= (v[k] > before[k]) & (v[k] >= after[k]);
            }
            if any {
                for k in 0..ABREAST.min(inner - first) {
                    if v[k] > before[k] && v[k] >= after[k] {
                        found.push(first + 1 + k);
                    }
                }
            }
        }
    }
}

/// Values from one on; nothing beyond the last.
#[inline(always)]
fn side_by_side(row: &[f32], first: usize) -> [f32; ABREAST] {
    if let Some(values) = row[first..].first_chunk() {
        return *values;
    }
    let mut values = [f32::NEG_INFINITY; ABREAST];
    for (value, v) in values.iter_mut().zip(&row[first..]) {
        *value = *v;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_their_largest() {
        sums_of::<f32>();
        sums_of::<i16>();
    }

    fn sums_of<T: Number>() {
        let arch = Arch::new();
        let numbers = |values: &[f32]| -> Vec<T> { values.iter().map(|v| T::of(*v)).collect() };
        let values = |numbers: &[T]| -> Vec<f32> { numbers.iter().map(|v| v.to_f32()).collect() };
        for n in [0, 1, 8, 31, 32, 67, 79] {
            // Some negative, and for n = 1 all of them.
            let a: Vec<f32> = (0..n).map(|i| ((i * 37) % 11) as f32 - 7.0).collect();
            let b: Vec<f32> = (0..=n).map(|i| ((i * 53) % 17) as f32 - 5.0).collect();
            let sums = |from: usize| -> Vec<f32> { a.iter().zip(&b[from..]).map(|(a, b)| a + b).collect() };
            let largest = |values: &[f32]| values.iter().copied().fold(0.0, f32::max);
            let expected = [sums(0), sums(1)];
            let most = [largest(&expected[0]), largest(&expected[1])];
            let power = expected[0].iter().map(|v| v * v.abs() / v.max(3.0)).fold(0.0, f32::max);
            assert_eq!(largest_power(arch, &numbers(&expected[0]), &expected[0], 3.0), power);
            let largest_of_a = largest(&a);
            let (a, b) = (numbers(&a), numbers(&b));
            let mut out = vec![T::default(); n];
            assert_eq!(add(arch, &mut out, &a, &b), most[0]);
            assert_eq!(values(&out), expected[0]);
            assert_eq!(copy(arch, &mut out, &a), largest_of_a);
            assert_eq!(values(&out), values(&a));
            let mut both = vec![T::default(); 2 * n];
            assert_eq!(add_twins(arch, &mut both, &a, &b), most);
            assert_eq!(values(&both), expected.concat());
            assert_eq!(largest_of_twins(arch, &a, &b), most);
            assert_eq!(largest_sum(arch, &a, &b), most[0]);
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
