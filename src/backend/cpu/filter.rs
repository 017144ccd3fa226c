//! The PSF filter: two separable passes, band by band. GPU twin: shaders/filter_rows.wgsl, shaders/filter_columns.wgsl.

use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;

use super::Image;
use crate::pipeline::psf::PsfKernel;

/// Rows one thread filters at once: their horizontal pass stays in its cache.
const BAND: usize = 32;

/// Convolves residual / noise, clipped at ±`clip`, with the PSF. Missing pixels and the outside count as zero.
pub(super) fn filter(
    residual: &Image,
    weight: &Image,
    kernel: &PsfKernel,
    clip: f32,
    with_saturated: bool,
    out: &mut Image,
) {
    let normalised = |r: f32, w: f32| (r * usable(w, with_saturated).sqrt()).clamp(-clip, clip);
    convolve(residual, weight, &kernel.taps, normalised, out);
}

/// Fraction of the filtered image's noise variance that usable pixels contribute.
pub(super) fn coverage(weight: &Image, kernel: &PsfKernel, with_saturated: bool, out: &mut Image) {
    let squares: Vec<f32> = kernel.taps.iter().map(|t| t * t).collect();
    let sum: f32 = squares.iter().sum();
    let taps: Vec<f32> = squares.iter().map(|t| t / sum).collect();
    convolve(weight, weight, &taps, |_, w| f32::from(usable(w, with_saturated) > 0.0), out);
}

fn usable(weight: f32, with_saturated: bool) -> f32 {
    if with_saturated { weight.abs() } else { weight.max(0.0) }
}

/// Pixels whose sums are kept in registers while the taps are gone through.
const STRIP: usize = 32;

fn convolve(a: &Image, b: &Image, taps: &[f32], input: impl Fn(f32, f32) -> f32 + Sync, out: &mut Image) {
    let width = a.width;
    let (radius, stride) = (taps.len() / 2, width.next_multiple_of(STRIP));
    let scratch = || (vec![0.0_f32; stride + 2 * radius], vec![0.0_f32; (BAND + 2 * radius) * stride]);
    out.data.par_chunks_mut(BAND * width).enumerate().for_each_init(scratch, |(padded, across), (band, out)| {
        Arch::new().dispatch(Band { a, b, taps, input: &input, first: band * BAND, out, padded, across });
    });
}

/// The rows of one band, from `first`.
struct Band<'a, F> {
    a: &'a Image,
    b: &'a Image,
    taps: &'a [f32],
    input: F,
    first: usize,
    out: &'a mut [f32],
    /// One line of input, with a margin of the kernel's radius before it and more behind it.
    padded: &'a mut [f32],
    /// Lines convolved horizontally, from as many rows before the band as the kernel reaches; whole strips long.
    across: &'a mut [f32],
}

impl<F: Fn(f32, f32) -> f32> NullaryFnOnce for Band<'_, F> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { a, b, taps, input, first, out, padded, across } = self;
        let (width, height) = (a.width, a.height);
        let (radius, stride) = (taps.len() / 2, width.next_multiple_of(STRIP));
        let rows = out.len() / width;
        for (i, across) in across.chunks_exact_mut(stride).take(rows + 2 * radius).enumerate() {
            let Some(y) = (first + i).checked_sub(radius).filter(|y| *y < height) else {
                across.fill(0.0);
                continue;
            };
            let at = y * width..(y + 1) * width;
            let line = padded[radius..radius + width].iter_mut();
            for ((p, &a), &b) in line.zip(&a.data[at.clone()]).zip(&b.data[at]) {
                *p = input(a, b);
            }
            for (x, strip) in across.as_chunks_mut::<STRIP>().0.iter_mut().enumerate() {
                *strip = weighted_sum(taps, padded, x * STRIP, 1);
            }
        }
        for (i, out) in out.chunks_exact_mut(width).enumerate() {
            for (x, strip) in out.chunks_mut(STRIP).enumerate() {
                let sums = weighted_sum(taps, across, i * stride + x * STRIP, stride);
                strip.copy_from_slice(&sums[..strip.len()]);
            }
        }
    }
}

/// `Σ taps[k] · lines[first + k · stride ..]`, a strip of it.
#[inline(always)]
fn weighted_sum(taps: &[f32], lines: &[f32], first: usize, stride: usize) -> [f32; STRIP] {
    let mut sums = [0.0; STRIP];
    for (k, tap) in taps.iter().enumerate() {
        let from = first + k * stride;
        for (sum, value) in sums.iter_mut().zip(&lines[from..from + STRIP]) {
            *sum += tap * value;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impulse_gives_the_kernel() {
        let kernel = PsfKernel::new(1.0);
        let (w, h) = (41, 70);
        let image = |f: &dyn Fn(usize, usize) -> f32| Image {
            width: w,
            height: h,
            data: (0..w * h).map(|i| f(i % w, i / w)).collect(),
        };
        // Across a band's border, to see that bands join.
        let residual = image(&|x, y| if (x, y) == (20, 31) { 8.0 } else { 0.0 });
        let weight = image(&|_, _| 0.25);
        let mut out = image(&|_, _| 0.0);
        filter(&residual, &weight, &kernel, 100.0, false, &mut out);
        let r = kernel.radius();
        for (x, y) in [(20, 31), (22, 33), (20, 35), (17, 30)] {
            let expected = 4.0 * kernel.taps[r + x - 20] * kernel.taps[(r + y) - 31];
            assert!((out.data[y * w + x] - expected).abs() < 1e-6);
        }
        filter(&residual, &weight, &kernel, 2.0, false, &mut out);
        assert!((out.data[31 * w + 20] - 2.0 * kernel.taps[r] * kernel.taps[r]).abs() < 1e-6, "clipped");
    }

    #[test]
    fn coverage_is_one_inside_and_less_beside_a_hole() {
        let kernel = PsfKernel::new(1.5);
        let (w, h) = (40, 40);
        let mut weight = Image { width: w, height: h, data: vec![3.0; w * h] };
        weight.data[20 * w + 20] = 0.0;
        let mut out = weight.clone();
        coverage(&weight, &kernel, false, &mut out);
        assert!((out.data[10 * w + 10] - 1.0).abs() < 1e-5);
        assert!(out.data[20 * w + 20] < 0.95 && out.data[0] < 0.5);
    }
}
