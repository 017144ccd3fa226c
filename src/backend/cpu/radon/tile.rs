//! The frame as the first level of a block of short levels: turned over as its octant asks, values limited.

use std::ops::Range;

use pulp::{Arch, NullaryFnOnce};

use super::block::{FirstLevel, Given};
use super::lanes;
use super::number::Number;
use super::plan::Stage;
use crate::backend::cpu::Image;
use crate::pipeline::segments::{Octant, line_offset};

/// Rows that are turned over together; few enough that they stay in a core's cache.
const SLAB_ROWS: usize = 64;

/// Some rows of a frame as an octant sees them, the columns of a block. Memory of one thread, kept from block to block.
#[derive(Debug, Default)]
pub(super) struct Tile<T> {
    rows: Range<usize>,
    first_column: i64,
    width: usize,
    pixels: Vec<T>,
}

/// A frame seen through a tile that moves down with the rows asked for.
pub(super) struct View<'a, T> {
    arch: Arch,
    image: &'a Image,
    octant: Octant,
    scale: Scale,
    tile: &'a mut Tile<T>,
}

/// How pixels become numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// Of values, on either side.
    limit: f32,
    per_unit: f32,
}

impl Scale {
    /// Values count as this on either side at most, and in so large units.
    pub(super) fn new(limit: f32, unit: f32) -> Self {
        Self { limit, per_unit: 1.0 / unit }
    }

    #[inline(always)]
    fn number<T: Number>(self, value: f32) -> T {
        let value = if value > self.limit { self.limit } else { value };
        let value = if value < -self.limit { -self.limit } else { value };
        T::of(value * self.per_unit)
    }
}

impl<'a, T: Number> View<'a, T> {
    pub(super) fn new(image: &'a Image, octant: Octant, scale: Scale, tile: &'a mut Tile<T>) -> Self {
        tile.rows = 0..0;
        Self { arch: Arch::new(), image, octant, scale, tile }
    }

    /// Moves the tile to begin at a row, and at a column of the octant that may lie beside the frame.
    fn load(&mut self, row: usize, n_rows: usize, first_column: i64, width: usize) {
        let (rows, columns) = self.octant.shape(self.image.width, self.image.height);
        self.tile.first_column = first_column;
        self.tile.width = width;
        let Tile { rows: loaded, pixels, .. } = &mut *self.tile;
        *loaded = row..(row + n_rows).min(rows);
        let from = first_column.clamp(0, columns as i64) as usize;
        let to = (first_column + width as i64).clamp(from as i64, columns as i64) as usize;
        let at = (from as i64 - first_column) as usize;
        pixels.resize(loaded.len() * width, T::zeroed());
        for row in pixels.chunks_exact_mut(width) {
            row[..at].fill(T::zeroed());
            row[at + to - from..].fill(T::zeroed());
        }
        self.arch.dispatch(Turn {
            image: self.image,
            octant: self.octant,
            rows: loaded.clone(),
            columns: if self.octant.mirrored { columns - to..columns - from } else { from..to },
            scale: self.scale,
            out: pixels,
            out_width: width,
            at,
        });
    }
}

impl<T: Number> FirstLevel<T> for View<'_, T> {
    fn give(&mut self, row: usize, column: i64, stage: &Stage<'_>, nodes: &mut [T], largest: &mut [f32]) -> Given {
        // The levels next to this one are not searched.
        largest.fill(f32::INFINITY);
        let (height, width) = (stage.level.height, nodes.len() / stage.shifts.len());
        if !self.tile.rows.contains(&row) {
            let whole = SLAB_ROWS - SLAB_ROWS % stage.keep_step;
            self.load(row, whole, column, width + height - 1);
        }
        // Short levels do not lean: one block's columns are the same in all rows.
        debug_assert_eq!(self.tile.first_column, column);
        let lines = self.tile.pixels.chunks_exact(self.tile.width).skip(row - self.tile.rows.start).take(height);
        for (shift, out) in stage.shifts.clone().zip(nodes.chunks_exact_mut(width)) {
            out.fill(T::zeroed());
            for (i, line) in lines.clone().enumerate() {
                lanes::accumulate(self.arch, out, &line[line_offset(height, height, shift, i)..]);
            }
        }
        Given::Here
    }
}

/// A part of an image as an octant sees it, values limited on either side.
struct Turn<'a, T> {
    image: &'a Image,
    octant: Octant,
    /// Rows of the octant.
    rows: Range<usize>,
    /// Columns of the octant, or of its mirror image.
    columns: Range<usize>,
    scale: Scale,
    /// One row after the other.
    out: &'a mut [T],
    out_width: usize,
    /// Column of `out` that the first one is put in.
    at: usize,
}

impl<T: Number> NullaryFnOnce for Turn<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        if self.octant.transposed { self.along_lines() } else { self.row_by_row() }
    }
}

impl<T: Number> Turn<'_, T> {
    /// Columns of the octant are lines of the frame: some at a time, so that what is written lies side by side as well;
    /// the last ones one by one.
    #[inline(always)]
    fn along_lines(self) {
        let Self { image, octant, rows, columns, scale, out, out_width, at } = self;
        let (n, n_rows) = (columns.len(), rows.len());
        let mut first = 0;
        while first < n {
            let together = if first + ABREAST <= n { ABREAST } else { 1 };
            let mut lines = [&[][..]; ABREAST];
            for (k, line) in lines.iter_mut().enumerate().take(together) {
                let column = first + k;
                let column = if octant.mirrored { columns.end - 1 - column } else { columns.start + column };
                *line = &image.data[column * image.width + rows.start..][..n_rows];
            }
            let out = out[at + first..].chunks_mut(out_width);
            if together == 1 {
                for (to, value) in out.zip(lines[0]) {
                    to[0] = scale.number(*value);
                }
            } else {
                for (row, out) in out.enumerate().take(n_rows) {
                    let mut values = [T::zeroed(); ABREAST];
                    for k in 0..ABREAST {
                        values[k] = scale.number(lines[k][row]);
                    }
                    out[..ABREAST].copy_from_slice(&values);
                }
            }
            first += together;
        }
    }

    #[inline(always)]
    fn row_by_row(self) {
        for (row, out) in self.rows.zip(self.out.chunks_exact_mut(self.out_width)) {
            let line = &self.image.data[row * self.image.width..][self.columns.clone()];
            let out = &mut out[self.at..self.at + line.len()];
            if self.octant.mirrored {
                for (to, value) in out.iter_mut().zip(line.iter().rev()) {
                    *to = self.scale.number(*value);
                }
            } else {
                for (to, value) in out.iter_mut().zip(line) {
                    *to = self.scale.number(*value);
                }
            }
        }
    }
}

/// Columns that are read side by side where rows and columns are exchanged.
const ABREAST: usize = 8;
