//! Ingest: raw pixels to values and weights. GPU twin: shaders/ingest.wgsl.

use rayon::prelude::*;

use crate::frame::{Frame, Pixels};

/// Pixels handled at once by one thread.
const BLOCK: usize = 1 << 15;

/// Fills `value` with the pixels and `weight` with 1 (usable), 0 (missing) or −1 (saturated: a lower limit).
pub(super) fn ingest(frame: &Frame<'_>, value: &mut [f32], weight: &mut [f32]) {
    // One loop per pixel type, so that the conversion is a plain cast the compiler can vectorise.
    match frame.pixels() {
        Pixels::U8(p) => convert(frame, p, f32::from, i32::from, value, weight),
        Pixels::U16(p) => convert(frame, p, f32::from, i32::from, value, weight),
        Pixels::I16(p) => convert(frame, p, f32::from, i32::from, value, weight),
        Pixels::I32(p) => convert(frame, p, |v| v as f32, |v| v, value, weight),
        Pixels::F32(p) => convert_float(frame, p, value, weight),
    }
    if let Some(mask) = frame.mask() {
        weight.par_iter_mut().zip(mask).for_each(|(w, &masked)| {
            if masked {
                *w = 0.0;
            }
        });
    }
}

fn convert<T: Copy + Sync>(
    frame: &Frame<'_>,
    pixels: &[T],
    to_value: impl Fn(T) -> f32 + Sync,
    to_integer: impl Fn(T) -> i32 + Sync,
    value: &mut [f32],
    weight: &mut [f32],
) {
    let saturation = frame.saturates_at().map_or(f32::INFINITY, |s| s as f32);
    value.par_chunks_mut(BLOCK).zip(weight.par_chunks_mut(BLOCK)).zip(pixels.par_chunks(BLOCK)).for_each(
        |((values, weights), pixels)| {
            for ((v, w), &p) in values.iter_mut().zip(weights).zip(pixels) {
                *v = to_value(p);
                *w = if *v >= saturation { -1.0 } else { 1.0 };
                if frame.blank().is_some_and(|b| to_integer(p) == b) {
                    (*v, *w) = (0.0, 0.0);
                }
            }
        },
    );
}

fn convert_float(frame: &Frame<'_>, pixels: &[f32], value: &mut [f32], weight: &mut [f32]) {
    let saturation = frame.saturates_at().map_or(f32::INFINITY, |s| s as f32);
    value.par_iter_mut().zip(weight.par_iter_mut()).zip(pixels).for_each(|((v, w), &p)| {
        (*v, *w) = match (p.is_finite(), p >= saturation) {
            (false, _) => (0.0, 0.0),
            (true, true) => (p, -1.0),
            (true, false) => (p, 1.0),
        };
    });
}
