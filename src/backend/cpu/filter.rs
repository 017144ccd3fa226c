//! The PSF filter: two separable passes, block by block. GPU twin: shaders/filter_rows.wgsl, shaders/filter_columns.wgsl.

use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;

use super::Image;
use crate::pipeline::psf::PsfKernel;

/// Rows and columns one thread filters at once, at most: their horizontal pass stays in its second cache, and lines are
/// long enough to be fetched ahead.
const ROWS: usize = 64;
const COLUMNS: usize = 1024;

/// Convolves residual / noise, clipped at ±`clip`, with the PSF. Missing pixels and the outside count as zero.
pub(super) fn filter(
    residual: &Image,
    weight: &Image,
    kernel: &PsfKernel,
    clip: f32,
    with_saturated: bool,
    out: &mut Image,
) {
    let input = Input::Significance { residual: &residual.data, weight: &weight.data, clip, with_saturated };
    convolve(input, &kernel.taps, out);
}

/// Fraction of the filtered image's noise variance that usable pixels contribute.
pub(super) fn coverage(weight: &Image, kernel: &PsfKernel, with_saturated: bool, out: &mut Image) {
    let squares: Vec<f32> = kernel.taps.iter().map(|t| t * t).collect();
    let sum: f32 = squares.iter().sum();
    let taps: Vec<f32> = squares.iter().map(|t| t / sum).collect();
    convolve(Input::IsUsable { weight: &weight.data, with_saturated }, &taps, out);
}

/// What is convolved.
#[derive(Debug, Clone, Copy)]
enum Input<'a> {
    Significance { residual: &'a [f32], weight: &'a [f32], clip: f32, with_saturated: bool },
    IsUsable { weight: &'a [f32], with_saturated: bool },
}

impl Input<'_> {
    /// Writes the pixels from `first` on.
    #[inline(always)]
    fn write(self, first: usize, out: &mut [f32]) {
        let pixels = first..first + out.len();
        match self {
            Self::Significance { residual, weight, clip, with_saturated } => {
                let pixels = residual[pixels.clone()].iter().zip(&weight[pixels]);
                for (out, (residual, weight)) in out.iter_mut().zip(pixels) {
                    let value = residual * usable(*weight, with_saturated).sqrt();
                    let value = if value < clip { value } else { clip };
                    *out = if value > -clip { value } else { -clip };
                }
            }
            Self::IsUsable { weight, with_saturated } => {
                for (out, weight) in out.iter_mut().zip(&weight[pixels]) {
                    *out = if usable(*weight, with_saturated) > 0.0 { 1.0 } else { 0.0 };
                }
            }
        }
    }
}

#[inline(always)]
fn usable(weight: f32, with_saturated: bool) -> f32 {
    if weight < 0.0 && with_saturated {
        -weight
    } else if weight > 0.0 {
        weight
    } else {
        0.0
    }
}

/// Pixels whose sums are kept in registers while the taps are gone through.
const STRIP: usize = 64;

fn convolve(input: Input<'_>, taps: &[f32], out: &mut Image) {
    let (width, height, radius) = (out.width, out.height, taps.len() / 2);
    // Blocks of one width, of whole strips.
    let columns = width.div_ceil(width.div_ceil(COLUMNS)).next_multiple_of(STRIP);
    let scratch = || (vec![0.0_f32; columns + 2 * radius], vec![0.0_f32; (ROWS + 2 * radius) * columns]);
    out.data.par_chunks_mut(ROWS * width).enumerate().for_each_init(scratch, |(padded, across), (band, out)| {
        for column in (0..width).step_by(columns) {
            let (row, out) = (band * ROWS, &mut *out);
            Arch::new().dispatch(Block { input, taps, width, height, row, column, columns, out, padded, across });
        }
    });
}

/// A block of the frame, from `row` and `column` on.
struct Block<'a> {
    input: Input<'a>,
    taps: &'a [f32],
    width: usize,
    height: usize,
    row: usize,
    column: usize,
    /// Columns of a block, at most, and of a line in `across`.
    columns: usize,
    /// The block's rows, whole.
    out: &'a mut [f32],
    /// One line of input, with a margin of the kernel's radius on either side.
    padded: &'a mut [f32],
    /// Lines convolved horizontally, from as many rows before the block as the kernel reaches.
    across: &'a mut [f32],
}

impl NullaryFnOnce for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { input, taps, width, height, row, column, columns: stride, out, padded, across } = self;
        let radius = taps.len() / 2;
        let columns = stride.min(width - column);
        // The part of the padded line that lies in the frame.
        let from = column.saturating_sub(radius);
        let to = (column + columns + radius).min(width);
        let inside = from + radius - column..to + radius - column;
        padded[..inside.start].fill(0.0);
        padded[inside.end..].fill(0.0);
        let rows = out.len() / width;
        for (i, across) in across.chunks_exact_mut(stride).take(rows + 2 * radius).enumerate() {
            let Some(y) = (row + i).checked_sub(radius).filter(|y| *y < height) else {
                across.fill(0.0);
                continue;
            };
            input.write(y * width + from, &mut padded[inside.clone()]);
            let strips = across.as_chunks_mut::<STRIP>().0;
            for (x, strip) in strips.iter_mut().take(columns.div_ceil(STRIP)).enumerate() {
                *strip = weighted_sum(taps, padded, x * STRIP, 1);
            }
        }
        for (i, out) in out.chunks_exact_mut(width).enumerate() {
            for (x, strip) in out[column..column + columns].chunks_mut(STRIP).enumerate() {
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
        // Two blocks, the second of them narrower.
        let (w, h) = (COLUMNS + 30, ROWS + 30);
        let (x0, y0) = (w.div_ceil(2).next_multiple_of(STRIP) - 1, ROWS - 1);
        let image = |f: &dyn Fn(usize, usize) -> f32| Image {
            width: w,
            height: h,
            data: (0..w * h).map(|i| f(i % w, i / w)).collect(),
        };
        // Across the blocks' borders, to see that they join.
        let residual = image(&|x, y| if (x, y) == (x0, y0) { 8.0 } else { 0.0 });
        let weight = image(&|_, _| 0.25);
        let mut out = image(&|_, _| 0.0);
        filter(&residual, &weight, &kernel, 100.0, false, &mut out);
        let r = kernel.radius();
        for (x, y) in [(x0, y0), (x0 + 2, y0 + 2), (x0, y0 + 4), (x0 - 3, y0 - 1), (x0 + 1, y0)] {
            let expected = 4.0 * kernel.taps[r + x - x0] * kernel.taps[r + y - y0];
            assert!((out.data[y * w + x] - expected).abs() < 1e-6);
        }
        filter(&residual, &weight, &kernel, 2.0, false, &mut out);
        assert!((out.data[y0 * w + x0] - 2.0 * kernel.taps[r] * kernel.taps[r]).abs() < 1e-6, "clipped");
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
