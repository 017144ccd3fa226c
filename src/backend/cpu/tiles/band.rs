//! Tiles side by side, read line by line: the memory is twice as fast where it is read in one go.

use std::ops::Range;

use pulp::{Arch, NullaryFnOnce};

use super::picked::{Picked, ROW};
use crate::pipeline::background::Mesh;
use crate::pipeline::lines::BLOCK;

/// Pixels of a band, if no tile has more: they stay in a core's second cache.
const MOST_PX: usize = 1 << 17;

/// So many tiles of a mesh are read together.
pub(super) fn tiles_together(mesh: Mesh) -> usize {
    let of_tile = mesh.area(0);
    // On many cores there has to be work for each.
    let fair = mesh.len() / (4 * rayon::current_num_threads());
    (MOST_PX / of_tile.max(1)).min(fair).clamp(1, mesh.nx)
}

/// The pixels of some tiles in a row of the mesh, so far as they are looked at.
#[derive(Debug, Default)]
pub(super) struct Band {
    rows: Vec<usize>,
    /// The columns of each tile.
    columns: Vec<Range<usize>>,
    /// The same, those that adjoin in one.
    stretches: Vec<Range<usize>>,
    /// Values of these columns, line by line.
    values: Vec<f32>,
    /// Whether all pixels of a line are usable.
    all_usable: Vec<bool>,
}

impl Band {
    /// Reads the tiles of one row of the mesh.
    pub(super) fn read(&mut self, values: &[f32], weights: &[f32], mesh: Mesh, iy: usize, tiles: Range<usize>) {
        self.rows.clear();
        self.rows.extend(mesh.lines(iy));
        self.columns.clear();
        self.columns.extend(tiles.map(|ix| mesh.columns(ix)));
        self.stretches.clear();
        for next in &self.columns {
            match self.stretches.last_mut() {
                Some(last) if last.end == next.start => last.end = next.end,
                _ => self.stretches.push(next.clone()),
            }
        }
        Arch::new().dispatch(Read { band: self, values, weights, width: mesh.width });
    }

    /// The usable pixels (weight > 0) of each tile one after the other, held in `usable`.
    pub(super) fn for_each_tile(
        &self,
        weights: &[f32],
        width: usize,
        usable: &mut Vec<f32>,
        mut what: impl FnMut(&[f32]),
    ) {
        let mut first = 0;
        for columns in &self.columns {
            usable.clear();
            Arch::new().dispatch(Gather { band: self, weights, width, columns: columns.clone(), first, usable });
            what(usable);
            first += columns.len();
        }
    }

    /// Pixels of a line.
    fn width(&self) -> usize {
        self.columns.iter().map(Range::len).sum()
    }
}

struct Read<'a> {
    band: &'a mut Band,
    values: &'a [f32],
    weights: &'a [f32],
    width: usize,
}

impl NullaryFnOnce for Read<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { band, values, weights, width } = self;
        let of_line = band.width();
        band.values.resize(of_line * band.rows.len(), 0.0);
        band.all_usable.clear();
        for (line, y) in band.values.chunks_exact_mut(of_line).zip(&band.rows) {
            let (mut first, mut all) = (0, true);
            for stretch in &band.stretches {
                let pixels = y * width + stretch.start..y * width + stretch.end;
                line[first..first + stretch.len()].copy_from_slice(&values[pixels.clone()]);
                all &= are_usable(&weights[pixels]);
                first += stretch.len();
            }
            band.all_usable.push(all);
        }
    }
}

/// Gathers the usable pixels of one tile, whose columns begin at `first` in a band's lines.
struct Gather<'a> {
    band: &'a Band,
    weights: &'a [f32],
    width: usize,
    columns: Range<usize>,
    first: usize,
    usable: &'a mut Vec<f32>,
}

impl NullaryFnOnce for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { band, weights, width, columns, first, usable } = self;
        let lines = band.values.chunks_exact(band.width()).zip(&band.all_usable).zip(&band.rows);
        for ((line, all_usable), y) in lines {
            let values = &line[first..first + columns.len()];
            let weights = &weights[y * width + columns.start..y * width + columns.end];
            if *all_usable || are_usable(weights) {
                // A copy of known length needs no call: blocks of columns are as narrow as that.
                match <&[f32; BLOCK]>::try_from(values) {
                    Ok(values) => usable.extend_from_slice(values),
                    Err(_) => usable.extend_from_slice(values),
                }
            } else {
                let mut picked = Picked::to(usable);
                for (values, weights) in values.chunks(ROW).zip(weights.chunks(ROW)) {
                    picked.pick(values.iter().zip(weights).map(|(v, w)| (*v, *w > 0.0)));
                }
                picked.finish();
            }
        }
    }
}

#[inline(always)]
fn are_usable(weights: &[f32]) -> bool {
    let mut all = true;
    for weight in weights {
        all &= *weight > 0.0;
    }
    all
}
