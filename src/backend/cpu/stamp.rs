//! The pixels of one fit, and the passes over them: many pixels at a time, on the widest vectors of the machine.
//!
//! A pass adds up single-precision products in lanes and folds them into double precision every few hundred pixels.

use std::ops::Range;

use pulp::{Arch, NullaryFnOnce};

use super::Image;
use super::model::{Form, Model, Near, Origin, Spot, ends_seen, light};
use crate::gauss::bell;
use crate::pipeline::measure::{FitRequest, FitSettings, N_PARAMETERS, N_TRIANGLE, StampWalk, Trail, triangle};

/// Pixels evaluated together: their intermediate values stay in the first cache.
const BLOCK: usize = 64;
type Block = [f32; BLOCK];

/// Columns that are taken together where a trail is followed along the rows.
const PART: usize = 16;

/// Partial sums that are kept side by side.
const LANES: usize = 16;

/// Blocks after which the partial sums are folded: a lane adds no more than 64 values in single precision.
const FOLD: usize = 16;

/// Where the pixels lie that fill up the last block: far from everything, with weight zero.
const NOWHERE: f32 = 1e6;

/// The pixels of a stamp, coordinates relative to its origin. Kept from fit to fit for its memory.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    origin: Origin,
    x: Vec<f32>,
    y: Vec<f32>,
    /// Residual, with the start model added back where it had been taken out.
    data: Vec<f32>,
    /// Inverse variance with the source's own photons.
    weight: Vec<f32>,
    /// Inverse variance of the background alone.
    sky_weight: Vec<f32>,
    /// Where the pixels are: rows of the image, each with its columns.
    rows: Vec<(usize, Range<usize>)>,
}

/// What one pass over the stamp adds up; of the matrix and the gradient only what belongs to free parameters.
#[derive(Debug, Clone)]
pub(super) struct Sums {
    pub(super) normal: [f64; N_TRIANGLE],
    pub(super) gradient: [f64; N_PARAMETERS],
    pub(super) curvature: [f64; 2],
    pub(super) chi2: f64,
    /// Σ w light² with background noise alone.
    pub(super) power: f64,
}

/// Places in the sums: the upper triangle of the matrix, the gradient, then these.
const GRADIENT: usize = N_TRIANGLE;
const CURVATURE: usize = GRADIENT + N_PARAMETERS;
const CHI2: usize = CURVATURE + 2;
const POWER: usize = CHI2 + 1;
const N_SUMS: usize = POWER + 1;

impl Stamp {
    /// Takes the pixels within reach of the request's start.
    pub(super) fn gather(&mut self, residual: &Image, weight: &Image, request: &FitRequest, settings: &FitSettings) {
        let (width, height) = (residual.width, residual.height);
        let start = &request.start;
        self.origin = Origin::of(&start.segment);
        for list in [&mut self.x, &mut self.y, &mut self.data, &mut self.weight, &mut self.sky_weight] {
            list.clear();
        }
        let model = Model::new(start, self.origin);
        let reach = settings.reach_px as f32;
        let walk = StampWalk::new(&start.segment, settings.reach_px, width, height);
        self.rows.clear();
        for (y, columns) in walk.rows(width, height) {
            let local_y = self.origin.local_y(y);
            let is_near = |x: &usize| {
                let (u, v) = model.along_across(self.origin.local_x(*x), local_y);
                v.abs() <= reach && u >= -reach && u <= model.length + reach
            };
            let Some(first) = columns.clone().find(is_near) else { continue };
            let last = columns.rev().find(is_near).unwrap_or(first);
            self.rows.push((y, first..last + 1));
        }
        // Part by part along the track: most blocks see one end, or none.
        let left = self.rows.iter().map(|(_, columns)| columns.start).min().unwrap_or(0);
        let right = self.rows.iter().map(|(_, columns)| columns.end).max().unwrap_or(0);
        let part = if walk.along_x { PART } else { width };
        for from in (left..right).step_by(part) {
            for (y, columns) in &self.rows {
                let columns = columns.start.max(from)..columns.end.min(from + part);
                if columns.is_empty() {
                    continue;
                }
                let row = y * width + columns.start..y * width + columns.end;
                self.y.extend(std::iter::repeat_n(self.origin.local_y(*y), columns.len()));
                self.x.extend(columns.map(|x| self.origin.local_x(x)));
                extend(&mut self.data, &residual.data[row.clone()]);
                extend(&mut self.sky_weight, &weight.data[row]);
            }
        }
        let padded = self.x.len().next_multiple_of(BLOCK);
        self.x.resize(padded, NOWHERE);
        self.y.resize(padded, NOWHERE);
        self.data.resize(padded, 0.0);
        self.sky_weight.resize(padded, 0.0);
        self.weight.resize(padded, 0.0);
        Arch::new().dispatch(Prepare {
            stamp: self,
            model,
            clip_sigmas: settings.clip_sigmas as f32,
            subtracted: request.subtracted,
            photon_variance: settings.photon_variance as f32,
        });
    }

    /// The flux that fits best with everything else as it is.
    pub(super) fn best_flux(&self, trail: &Trail) -> f64 {
        let unit = Model::new(&Trail { flux: 1.0, ..*trail }, self.origin);
        let [signal, power] = Arch::new().dispatch(FluxPass { stamp: self, unit, background: trail.background as f32 });
        if power > 0.0 { signal / power } else { 0.0 }
    }

    /// The sums of one pass, for the free parameters of a trail.
    pub(super) fn accumulate(&self, trail: &Trail, free: &[bool; N_PARAMETERS]) -> Sums {
        let model = Model::new(trail, self.origin);
        let background = trail.background as f32;
        let sums = Arch::new().dispatch(FitPass { stamp: self, model, background, free });
        Sums {
            normal: std::array::from_fn(|k| sums[k]),
            gradient: std::array::from_fn(|k| sums[GRADIENT + k]),
            curvature: [sums[CURVATURE], sums[CURVATURE + 1]],
            chi2: sums[CHI2],
            power: sums[POWER],
        }
    }

    /// Number of usable pixels.
    pub(super) fn n_usable(&self) -> usize {
        self.weight.iter().filter(|w| **w > 0.0).count()
    }

    /// Fraction of the track's width, within two PSF widths of either end, that lies on usable pixels.
    pub(super) fn end_coverage(&self, trail: &Trail) -> [f64; 2] {
        let model = Model::new(trail, self.origin);
        let sums = Arch::new().dispatch(CoveragePass { stamp: self, model });
        [0, 1].map(|end| if sums[2 * end + 1] > 0.0 { sums[2 * end] / sums[2 * end + 1] } else { 0.0 })
    }

    fn n_blocks(&self) -> usize {
        self.x.len() / BLOCK
    }
}

/// Adds some values to a list: a copy of known length needs no call.
#[inline(always)]
fn extend(list: &mut Vec<f32>, values: &[f32]) {
    match <&[f32; PART]>::try_from(values) {
        Ok(values) => list.extend_from_slice(values),
        Err(_) => list.extend_from_slice(values),
    }
}

/// Places `i` of all lists of a stamp.
struct Pixels<'a> {
    x: &'a Block,
    y: &'a Block,
    data: &'a Block,
    weight: &'a Block,
    sky_weight: &'a Block,
}

impl Stamp {
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
struct Prepare<'a> {
    stamp: &'a mut Stamp,
    model: Model,
    clip_sigmas: f32,
    /// The model has been taken out of the data.
    subtracted: bool,
    photon_variance: f32,
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
struct CoveragePass<'a> {
    stamp: &'a Stamp,
    model: Model,
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
            if k % FOLD == FOLD - 1 {
                sums.fold();
            }
        }
        sums.fold();
        sums.folded
    }
}

/// `Σ w t (d − background)` and `Σ w t²` of a model of unit flux.
struct FluxPass<'a> {
    stamp: &'a Stamp,
    unit: Model,
    background: f32,
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
            if k % FOLD == FOLD - 1 {
                sums.fold();
            }
        }
        sums.fold();
        sums.folded
    }
}

/// All sums that a step of the fit needs.
struct FitPass<'a> {
    stamp: &'a Stamp,
    model: Model,
    background: f32,
    free: &'a [bool; N_PARAMETERS],
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
            if k % FOLD == FOLD - 1 {
                sums.fold();
            }
        }
        sums.fold();
        sums.folded
    }
}
