//! What nodes are summed in: values as they are, or whole steps in 16 bits, of which a vector holds twice as many.

use pulp::Simd;
use pulp::bytemuck::Pod;

/// A number of a node, and vectors of it.
pub(super) trait Number: Pod + Default + Send + Sync {
    type Vector<S: Simd>: Copy;

    fn plus(self, other: Self) -> Self;

    fn to_f32(self) -> f32;

    /// The number nearest to a value, the even one of two, where numbers are whole; it has to be in their range.
    fn of(value: f32) -> Self;

    /// A row as vectors, and what is left.
    fn vectors<S: Simd>(row: &[Self]) -> (&[Self::Vector<S>], &[Self]);

    fn vectors_mut<S: Simd>(row: &mut [Self]) -> (&mut [Self::Vector<S>], &mut [Self]);

    /// What is left of a row; lanes beyond are 0.
    fn load_rest<S: Simd>(simd: S, rest: &[Self]) -> Self::Vector<S>;

    fn store_rest<S: Simd>(simd: S, rest: &mut [Self], vector: Self::Vector<S>);

    fn zeros<S: Simd>(simd: S) -> Self::Vector<S>;

    fn add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;

    /// The larger of each two.
    fn larger<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;

    /// The largest lane.
    fn largest<S: Simd>(simd: S, vector: Self::Vector<S>) -> f32;
}

macro_rules! vectors_of {
    ($number:ident, $add:ident, $max:ident, $splat:ident, $as_simd:ident, $as_mut_simd:ident, $load:ident, $store:ident) => {
        #[inline(always)]
        fn vectors<S: Simd>(row: &[Self]) -> (&[Self::Vector<S>], &[Self]) {
            S::$as_simd(row)
        }

        #[inline(always)]
        fn vectors_mut<S: Simd>(row: &mut [Self]) -> (&mut [Self::Vector<S>], &mut [Self]) {
            S::$as_mut_simd(row)
        }

        #[inline(always)]
        fn load_rest<S: Simd>(simd: S, rest: &[Self]) -> Self::Vector<S> {
            simd.$load(rest)
        }

        #[inline(always)]
        fn store_rest<S: Simd>(simd: S, rest: &mut [Self], vector: Self::Vector<S>) {
            simd.$store(rest, vector);
        }

        #[inline(always)]
        fn zeros<S: Simd>(simd: S) -> Self::Vector<S> {
            simd.$splat($number::default())
        }

        #[inline(always)]
        fn add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S> {
            simd.$add(a, b)
        }

        #[inline(always)]
        fn larger<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S> {
            simd.$max(a, b)
        }
    };
}

impl Number for f32 {
    type Vector<S: Simd> = S::f32s;

    vectors_of!(
        f32,
        add_f32s,
        max_f32s,
        splat_f32s,
        as_simd_f32s,
        as_mut_simd_f32s,
        partial_load_f32s,
        partial_store_f32s
    );

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self + other
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn of(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn largest<S: Simd>(simd: S, vector: S::f32s) -> f32 {
        simd.reduce_max_f32s(vector)
    }
}

/// Whole steps. Who sums them sees to it that they stay in range.
impl Number for i16 {
    type Vector<S: Simd> = S::i16s;

    vectors_of!(
        i16,
        add_i16s,
        max_i16s,
        splat_i16s,
        as_simd_i16s,
        as_mut_simd_i16s,
        partial_load_i16s,
        partial_store_i16s
    );

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from(self)
    }

    #[inline(always)]
    fn of(value: f32) -> Self {
        // From here on floats lie one apart: the sum is rounded, and its last bits are the number.
        const ONE_APART: f32 = 12_582_912.0;
        (value + ONE_APART).to_bits() as Self
    }

    #[inline(always)]
    fn largest<S: Simd>(_: S, vector: S::i16s) -> f32 {
        let mut most = Self::MIN;
        for lane in pulp::bytemuck::cast_slice::<S::i16s, Self>(std::slice::from_ref(&vector)) {
            most = most.max(*lane);
        }
        most.to_f32()
    }
}
