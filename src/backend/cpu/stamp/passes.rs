//! Passes over the pixels of a stamp, on the widest vectors of the machine. They add up single-precision products in lanes
//! and fold them into double precision every few hundred pixels.

use pulp::NullaryFnOnce;

use super::{BLOCK, Block, Stamp};
use crate::backend::cpu::model::{Form, Model, Near, Spot, ends_seen, light};
use crate::gauss::bell;
use crate::pipeline::measure::{N_PARAMETERS, N_TRIANGLE, triangle};

/// Partial sums that are kept side by side.
const LANES: usize = 16;

/// Blocks after which the partial sums are folded: a lane adds no more than 64 values in single precision.
const FOLD: usize = 16;

/// Places in the sums: the upper triangle of the matrix, the gradient, then these.
pub(super) const GRADIENT: usize = N_TRIANGLE;
pub(super) const CURVATURE: usize = GRADIENT + N_PARAMETERS;
pub(super) const CHI2: usize = CURVATURE + 2;
pub(super) const POWER: usize = CHI2 + 1;
const N_SUMS: usize = POWER + 1;

/// Places `i` of all lists of a stamp.
struct Pixels<'a> {
    x: &'a Block,
    y: &'a Block,
    data: &'a Block,
    weight: &'a Block,
    sky_weight: &'a Block,
}

impl Stamp {
    fn n_blocks(&self) -> usize {
        self.x.len() / BLOCK
    }

    #[inline(always)]
    fn block(&self, i: usize) -> Pixels<'_> {
        Pixels {
            x: &self.x.as_chunks::<BLOCK>().0[i],
            y: &self.y.as_chunks::<BLOCK>().0[i],
            data: &self.data.as_chunks::<BLOCK>().0[i],
            weight: &self.weight.as_chunks::<BLOCK>().0[i],
            sky_weight: &self.sky_weight.as_chunks::<BLOCK>().0[i],
        }
    }
}

/// Sums in lanes, and what has been folded of them.
struct LaneSums<const N: usize> {
    lanes: [[f32; LANES]; N],
    folded: [f64; N],
}

impl<const N: usize> LaneSums<N> {
    #[inline(always)]
    fn new() -> Self {
        Self { lanes: [[0.0; LANES]; N], folded: [0.0; N] }
    }

    /// Adds `Σ a b` to sum `k`.
    #[inline(always)]
    fn add(&mut self, k: usize, a: &Block, b: &Block) {
        let lanes = &mut self.lanes[k];
        for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
            for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                *lane += a * b;
            }
        }
    }

    /// Folds after every so many blocks, of which `k` was the last.
    #[inline(always)]
    fn end_block(&mut self, k: usize) {
        if k % FOLD == FOLD - 1 {
            self.fold();
        }
    }

    #[inline(always)]
    fn total(mut self) -> [f64; N] {
        self.fold();
        self.folded
    }

    #[inline(always)]
    fn fold(&mut self) {
        for (total, lanes) in self.folded.iter_mut().zip(&mut self.lanes) {
            *total += lanes.iter().map(|v| f64::from(*v)).sum::<f64>();
            *lanes = [0.0; LANES];
        }
    }
}

#[inline(always)]
fn product(a: &Block, b: &Block) -> Block {
    let mut out = [0.0; BLOCK];
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = a * b;
    }
    out
}

/// Makes the pixels of a stamp ready for the fit.
pub(super) struct Prepare<'a> {
    pub(super) stamp: &'a mut Stamp,
    pub(super) model: Model,
    pub(super) clip_sigmas: f32,
    /// The model has been taken out of the data.
    pub(super) subtracted: bool,
    pub(super) photon_variance: f32,
}

impl NullaryFnOnce for Prepare<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { stamp, model, clip_sigmas, subtracted, photon_variance } = self;
        let places = stamp.x.as_chunks::<BLOCK>().0.iter().zip(stamp.y.as_chunks::<BLOCK>().0);
        let data = stamp.data.as_chunks_mut::<BLOCK>().0;
        let weights =
            stamp.weight.as_chunks_mut::<BLOCK>().0.iter_mut().zip(stamp.sky_weight.as_chunks_mut::<BLOCK>().0);
        for (((x, y), data), (weight, sky_weight)) in places.zip(data).zip(weights) {
            // Clipped at so many times the noise; of no account where the weight is zero.
            for (value, weight) in data.iter_mut().zip(&mut *sky_weight) {
                *weight = weight.max(0.0);
                let most = clip_sigmas / weight.sqrt().max(1e-20);
                *value = value.clamp(-most, most);
            }
            *weight = *sky_weight;
            if subtracted || photon_variance > 0.0 {
                let light = light(&model, x, y);
                for i in 0..BLOCK {
                    data[i] += if subtracted { light[i] } else { 0.0 };
                    weight[i] /= 1.0 + weight[i] * photon_variance * light[i].max(0.0);
                }
            }
        }
    }
}

/// Of the track's width near its first end what lies on usable pixels, and all of it, and the same of its last end.
pub(super) struct CoveragePass<'a> {
    pub(super) stamp: &'a Stamp,
    pub(super) model: Model,
}

impl NullaryFnOnce for CoveragePass<'_> {
    type Output = [f64; 4];

    #[inline(always)]
    fn call(self) -> [f64; 4] {
        let Self { stamp, model } = self;
        let near = 2.0 * model.sigma;
        let mut sums = LaneSums::<4>::new();
        for k in 0..stamp.n_blocks() {
            let p = stamp.block(k);
            let (mut share, mut usable) = ([[0.0; BLOCK]; 2], [0.0; BLOCK]);
            for i in 0..BLOCK {
                let (u, v) = model.along_across(p.x[i], p.y[i]);
                let height = bell(v / model.sigma);
                share[0][i] = if u.abs() <= near { height } else { 0.0 };
                share[1][i] = if (u - model.length).abs() <= near { height } else { 0.0 };
                usable[i] = if p.weight[i] > 0.0 { 1.0 } else { 0.0 };
            }
            for (end, share) in share.iter().enumerate() {
                sums.add(2 * end, share, &usable);
                sums.add(2 * end + 1, share, &[1.0; BLOCK]);
            }
            sums.end_block(k);
        }
        sums.total()
    }
}

/// `Σ w t (d − background)` and `Σ w t²` of a model of unit flux.
pub(super) struct FluxPass<'a> {
    pub(super) stamp: &'a Stamp,
    pub(super) unit: Model,
    pub(super) background: f32,
}

impl NullaryFnOnce for FluxPass<'_> {
    type Output = [f64; 2];

    #[inline(always)]
    fn call(self) -> [f64; 2] {
        let mut sums = LaneSums::<2>::new();
        for k in 0..self.stamp.n_blocks() {
            let p = self.stamp.block(k);
            let t = light(&self.unit, p.x, p.y);
            let weighted = product(p.weight, &t);
            let mut rest = [0.0; BLOCK];
            for (rest, value) in rest.iter_mut().zip(p.data) {
                *rest = value - self.background;
            }
            sums.add(0, &weighted, &rest);
            sums.add(1, &weighted, &t);
            sums.end_block(k);
        }
        sums.total()
    }
}

/// All sums that a step of the fit needs.
pub(super) struct FitPass<'a> {
    pub(super) stamp: &'a Stamp,
    pub(super) model: Model,
    pub(super) background: f32,
    pub(super) free: &'a [bool; N_PARAMETERS],
}

/// The model with its derivatives on a block.
struct Samples {
    light: Block,
    gradient: [Block; N_PARAMETERS],
    curvature: [Block; 2],
}

impl Samples {
    /// Evaluates a model; which of its ends are seen.
    #[inline(always)]
    fn evaluate(&mut self, model: &Model, x: &Block, y: &Block) -> [bool; 2] {
        if model.is_point() {
            return self.fill::<Spot>(model, x, y);
        }
        match ends_seen(model, x, y) {
            [false, false] => self.fill::<Near<false, false>>(model, x, y),
            [true, false] => self.fill::<Near<true, false>>(model, x, y),
            [false, true] => self.fill::<Near<false, true>>(model, x, y),
            [true, true] => self.fill::<Near<true, true>>(model, x, y),
        }
    }

    #[inline(always)]
    fn fill<F: Form>(&mut self, model: &Model, x: &Block, y: &Block) -> [bool; 2] {
        for i in 0..BLOCK {
            let sample = F::sample(model, x[i], y[i]);
            self.light[i] = sample.light;
            for (row, value) in self.gradient.iter_mut().zip(sample.gradient) {
                row[i] = value;
            }
            for (row, value) in self.curvature.iter_mut().zip(sample.curvature) {
                row[i] = value;
            }
        }
        F::ENDS
    }
}

impl NullaryFnOnce for FitPass<'_> {
    type Output = [f64; N_SUMS];

    #[inline(always)]
    fn call(self) -> [f64; N_SUMS] {
        let model = &self.model;
        let mut sums = LaneSums::<N_SUMS>::new();
        let mut s =
            Samples { light: [0.0; BLOCK], gradient: [[0.0; BLOCK]; N_PARAMETERS], curvature: [[0.0; BLOCK]; 2] };
        for k in 0..self.stamp.n_blocks() {
            let p = self.stamp.block(k);
            let ends = s.evaluate(model, p.x, p.y);
            let mut rest = [0.0; BLOCK];
            for ((rest, value), light) in rest.iter_mut().zip(p.data).zip(&s.light) {
                *rest = value - (light + self.background);
            }
            let weighted = product(p.weight, &rest);
            sums.add(CHI2, &weighted, &rest);
            sums.add(POWER, &product(p.sky_weight, &s.light), &s.light);
            for (end, curvature) in s.curvature.iter().enumerate() {
                if ends[end] {
                    sums.add(CURVATURE + end, &weighted, curvature);
                }
            }
            for i in 0..N_PARAMETERS {
                if !self.free[i] {
                    continue;
                }
                sums.add(GRADIENT + i, &weighted, &s.gradient[i]);
                let row = product(p.weight, &s.gradient[i]);
                for j in i..N_PARAMETERS {
                    if self.free[j] {
                        sums.add(triangle(i, j), &row, &s.gradient[j]);
                    }
                }
            }
            sums.end_block(k);
        }
        sums.total()
    }
}
