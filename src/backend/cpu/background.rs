//! The background map evaluated at every pixel. GPU twin: shaders/normalise.wgsl.

use std::ops::Range;

use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;

use super::Image;
use crate::pipeline::background::{BackgroundMap, Mesh};
use crate::pipeline::lines::Lines;

/// Value − sky level, and weights to inverse variances; a saturated pixel keeps its negative sign.
pub(super) fn normalise(values: &mut [f32], weights: &mut [f32], map: &BackgroundMap) {
    let mesh = map.mesh;
    let columns = Columns::new(mesh);
    let rows = values.par_chunks_mut(mesh.width).zip(weights.par_chunks_mut(mesh.width)).enumerate();
    rows.for_each_init(Coefficients::default, |along, (y, (values, weights))| {
        Arch::new().dispatch(Row { y, values, weights, map, columns: &columns, along });
    });
}

/// Residual − offsets of column and row, and weight zero where either is left out. GPU twin: shaders/lines.wgsl.
pub(super) fn take_off_lines(residual: &mut Image, weight: &mut Image, lines: &Lines) {
    let width = residual.width;
    let (columns, rows) = lines.factors.split_at(width);
    let images = residual.data.par_chunks_mut(width).zip(weight.data.par_chunks_mut(width));
    images.zip(rows).enumerate().for_each(|(y, ((values, weights), row))| {
        let (of_columns, of_row) = (lines.of_columns(y).split_at(width / 2), lines.of_row(y));
        let (first, second) = values.split_at_mut(width / 2);
        for (values, of_columns, of_row) in [(first, of_columns.0, of_row[0]), (second, of_columns.1, of_row[1])] {
            values.iter_mut().zip(of_columns).for_each(|(value, of_column)| *value -= of_column + of_row);
        }
        weights.iter_mut().zip(columns).for_each(|(weight, column)| *weight *= column * row);
    });
}

/// The spline along a row: the weights of its four coefficients at every pixel, and the pixels that share them.
struct Columns {
    weights: [Vec<f32>; 4],
    /// Index of the first coefficient, and the pixels.
    cells: Vec<(usize, Range<usize>)>,
}

impl Columns {
    fn new(mesh: Mesh) -> Self {
        let at = |x: usize| BackgroundMap::spline_weights(x, mesh.width, mesh.nx);
        let weights = std::array::from_fn(|i| (0..mesh.width).map(|x| at(x).1[i]).collect());
        let mut cells: Vec<(usize, Range<usize>)> = Vec::new();
        for x in 0..mesh.width {
            let first = at(x).0;
            match cells.last_mut() {
                Some((cell, pixels)) if *cell == first => pixels.end = x + 1,
                _ => cells.push((first, x..x + 1)),
            }
        }
        Self { weights, cells }
    }
}

/// The spline's coefficients along one row.
#[derive(Debug, Default)]
struct Coefficients {
    level: Vec<f32>,
    noise: Vec<f32>,
}

/// One row to be normalised.
struct Row<'a> {
    y: usize,
    values: &'a mut [f32],
    weights: &'a mut [f32],
    map: &'a BackgroundMap,
    columns: &'a Columns,
    along: &'a mut Coefficients,
}

impl NullaryFnOnce for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let mesh = self.map.mesh;
        let stride = mesh.nx + 4;
        let (iy, wy) = BackgroundMap::spline_weights(self.y, mesh.height, mesh.ny);
        let Coefficients { level, noise } = self.along;
        for (along, map) in [(&mut *level, &self.map.level), (&mut *noise, &self.map.noise)] {
            along.clear();
            along.resize(stride, 0.0);
            for (weight, line) in wy.iter().zip(map[iy * stride..].chunks_exact(stride)) {
                for (sum, coefficient) in along.iter_mut().zip(line) {
                    *sum += weight * coefficient;
                }
            }
        }
        let [w0, w1, w2, w3] = &self.columns.weights;
        for (first, pixels) in &self.columns.cells {
            let level: [f32; 4] = std::array::from_fn(|i| level[first + i]);
            let noise: [f32; 4] = std::array::from_fn(|i| noise[first + i]);
            let along = w0[pixels.clone()].iter().zip(&w1[pixels.clone()]);
            let along = along.zip(w2[pixels.clone()].iter().zip(&w3[pixels.clone()]));
            let changed = self.values[pixels.clone()].iter_mut().zip(&mut self.weights[pixels.clone()]);
            for ((value, weight), ((a, b), (c, d))) in changed.zip(along) {
                *value -= a * level[0] + b * level[1] + c * level[2] + d * level[3];
                let sd = a * noise[0] + b * noise[1] + c * noise[2] + d * noise[3];
                let sd = if sd > self.map.noise_floor { sd } else { self.map.noise_floor };
                let inverse = 1.0 / (sd * sd);
                *weight = if *weight > 0.0 {
                    inverse
                } else if *weight < 0.0 {
                    -inverse
                } else {
                    0.0
                };
            }
        }
    }
}
